"""Florence-2 (Xiao et al. 2024, arXiv 2311.06242; MIT): writes the outline of what a sentence refers to.

The vision tower sees a photo once. For each sentence the language model reads both and writes polygons, word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ris_core.encoders.pixels import IMAGENET
from ris_core.encoders.weights import pretrained, tokenizer
from ris_core.inference.frame import Image
from ris_core.inference.passes import in_batches
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot.network import Found, ZeroShotNetwork, square_map
from ris_core.zero_shot.pixels import normalised, resized, stretched_frame
from ris_core.zero_shot.polygons import Polygon, filled, parse

# The request that it learnt for masks of referring expressions, around the expression.
_BEFORE, _AFTER = "Locate", " in the image with mask"
# A polygon is sharp: inside and outside it there is no doubt.
_LOGIT = 10.0


class Florence2(ZeroShotNetwork):
    """It always answers and says of nothing how sure it is: what it was likely to write stands for that.

    Attributes:
        side: of its canvas, in pixels.
        most_words: that an answer consists of; more have no place in its decoder.
    """

    side = 768
    most_words = 1023

    def __init__(self, network: Any, words: Any) -> None:
        """network: Florence2ForConditionalGeneration. words: its tokenizer."""
        super().__init__()
        self.network = network
        self._words = words

    @classmethod
    def load(cls, folder: Path) -> Florence2:
        """From the files of the hub. Raises CheckpointError if one is missing or damaged."""
        from transformers import Florence2ForConditionalGeneration  # noqa: PLC0415 - takes seconds

        return cls(pretrained(Florence2ForConditionalGeneration, folder), tokenizer(folder))

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """As `ZeroShotNetwork.encode`; the frame is the whole canvas, whatever a photo's shape."""
        size = self.side, self.side
        pixels = torch.stack([normalised(resized(image, size, Resampling.BICUBIC), IMAGENET) for image in images])
        seen = self.network.get_image_features(pixels.to(self.device, self.dtype)).pooler_output
        return [
            PreparedImage([(seen[number : number + 1].clone(),)], stretched_frame(image, self.side))
            for number, image in enumerate(images)
        ]

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """As `ZeroShotNetwork.find`: a thing for each group of polygons, however unlikely it was to be written."""
        seen = image.levels[0][0]
        return list(in_batches(sentences, self.photos_together, lambda some: self._find(seen, some)))

    def _find(self, seen: Tensor, sentences: Sequence[str]) -> list[Found]:
        requests = [self.request(sentence, seen.shape[1]) for sentence in sentences]
        states, attended = self._read(seen, requests)
        answers = self._write(states, attended)
        return [
            self._found(answer, self._likelihoods(answer, states[number : number + 1], attended[number : number + 1]))
            for number, answer in enumerate(answers)
        ]

    def request(self, sentence: str, beside: int) -> list[int]:
        """The numbers of a request's words; of too long a sentence the first. beside: places that the photo takes."""
        before, expression, after = (
            self._words(text, add_special_tokens=False)["input_ids"] for text in (_BEFORE, f" {sentence}", _AFTER)
        )
        config = self.network.config.text_config
        room = config.max_position_embeddings - beside - len(before) - len(after) - 2
        return [config.bos_token_id, *before, *expression[:room], *after, config.eos_token_id]

    def _read(self, seen: Tensor, requests: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """What the encoder makes of a photo and each request, (N, L, C), and which places of it hold something."""
        text = self.network.config.text_config
        numbers = pad_sequence(
            [torch.tensor(request) for request in requests], batch_first=True, padding_value=text.pad_token_id
        )
        lengths = torch.tensor([[seen.shape[1] + len(request)] for request in requests])
        attended = (torch.arange(int(lengths.max())) < lengths).long().to(self.device)
        words = self.network.get_input_embeddings()(numbers.to(self.device))
        both = torch.cat([seen.expand(len(requests), -1, -1), words], dim=1)
        states = self.network.get_encoder()(inputs_embeds=both, attention_mask=attended).last_hidden_state
        return states, attended

    def _write(self, states: Tensor, attended: Tensor) -> list[Tensor]:
        """What it answers to each request, the numbers of words (L,): decoded as it was published to be."""
        text = self.network.config.text_config
        answers = self.network.generate(
            encoder_outputs=_as_output(states),
            attention_mask=attended,
            max_new_tokens=self.most_words,
            do_sample=False,
            num_beams=3,
            early_stopping=True,
            no_repeat_ngram_size=3,
            forced_bos_token_id=text.bos_token_id,
            forced_eos_token_id=text.eos_token_id,
        )
        # Shorter answers are filled up.
        return [answer[: int((answer != text.pad_token_id).nonzero().max()) + 1] for answer in answers]

    def _likelihoods(self, answer: Tensor, states: Tensor, attended: Tensor) -> Tensor:
        """(L,) and what was read -> how likely it was to write each word of it, [0, 1], (L - 1,): all but the first.

        Read off in a second pass: to keep the likelihoods of all words while writing would take half a gigabyte.
        """
        output = self.network(
            encoder_outputs=_as_output(states),
            attention_mask=attended,
            decoder_input_ids=answer[None, :-1],
            use_cache=False,
        )
        likelihoods: Tensor = output.logits[0].float().softmax(dim=1).gather(1, answer[1:, None])[:, 0]
        return likelihoods

    def _found(self, answer: Tensor, likelihoods: Tensor) -> Found:
        size = self.side, self.side
        things = parse(self._words.convert_ids_to_tokens(answer[1:].tolist()))
        drawn = [(mask, _likelihood(thing, likelihoods)) for thing in things if (mask := filled(thing, size)).any()]
        masks = torch.from_numpy(np.array([mask for mask, _ in drawn], np.float32).reshape(-1, *size))
        scores = torch.tensor([score for _, score in drawn], device=self.device)
        logits = (masks.to(self.device) * 2 - 1) * _LOGIT
        return Found(logits, scores, torch.ones_like(scores), float(bool(drawn)))

    def features(self, image: PreparedImage) -> Tensor:
        """As `ZeroShotNetwork.features`: the photo as the language model sees it."""
        return square_map(image.levels[0][0][0, 1:])  # the first stands for the whole photo


def _likelihood(thing: Sequence[Polygon], likelihoods: Tensor) -> float:
    """The mean of its words'."""
    return float(torch.cat([likelihoods[slice(*polygon.words)] for polygon in thing]).mean())


def _as_output(states: Tensor) -> Any:
    """What the encoder made, as the network takes it."""
    from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415 - takes seconds

    return BaseModelOutput(last_hidden_state=states)
