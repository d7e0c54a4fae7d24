"""A listener: of several things of one kind, which one a sentence means by where they lie and how large they are.

It sees boxes and words, never a photo, so it can be taught by language alone. What things look like is left to the
models that see; `inference.choosing` puts both together.

After MAttNet (Yu et al. 2018) and the listeners before it (Mao et al. 2016; Yu et al. 2016): candidates are scored
against the sentence, the target against the others of its photo; a candidate's place is described by its box
and by its differences to the others'. Ours: ranks along both axes and by size, self-attention among all candidates in
place of the five nearest, cross-attention to the words of a frozen encoder in place of a word-attention module, and a
second output that says whether all of them are meant.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core import checkpoint_files
from ris_core.checkpoint_files import WEIGHTS
from ris_core.encoders.base import TextFeatures
from ris_core.errors import CheckpointError
from ris_core.files import sha256
from ris_core.models.layers import Attention, FeedForward, linear_norm
from ris_core.switches import checked

_FORMAT = 1
# Ranks from each end that are told apart, and so counts: what is further along counts as the last of these.
_RANKS = 6
# From the left, the right, the top, the bottom, the largest, the smallest.
_ORDERS = 6
_PLAIN = 18
FEATURES, PAIR_FEATURES = _PLAIN + _ORDERS * _RANKS + _RANKS, 12
# Shares of a photo's side: nearer to an edge, and a box reaches it.
_EDGE = 0.01


@dataclass(frozen=True)
class ListenerOptions:
    """text_encoder, text_width: whose words it knows, and how wide these are.

    width: of all vectors, a multiple of `heads`. layers: rounds of looking at each other and at the words.
    """

    text_encoder: str = "minilm"
    text_width: int = 384
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2


class Choice(NamedTuple):
    """What a listener makes of N sentences, each about up to K candidates.

    meant: (N, K) logits, softmax over the candidates; -inf where there is none. every: (N,) logits, all are meant.
    """

    meant: Tensor
    every: Tensor


class Listener(nn.Module):
    """Boxes and words -> which candidate is meant."""

    def __init__(self, options: ListenerOptions | None = None) -> None:
        super().__init__()
        self.options = options or ListenerOptions()
        width, text_width = self.options.width, self.options.text_width
        self.words = linear_norm(text_width, width)
        self.sentence = linear_norm(text_width, width)
        self.place = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.pair = nn.Sequential(nn.Linear(PAIR_FEATURES + width, width), nn.GELU(), nn.Linear(width, width // 2))
        self.join = nn.Linear(width, width)
        self.rounds = nn.ModuleList(
            _Round(width, self.options.heads, self.options.dropout) for _ in range(self.options.layers)
        )
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.every = nn.Sequential(nn.Linear(text_width + width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, boxes: Tensor, absent: Tensor, text: TextFeatures) -> Choice:
        """Score N lists of K candidates against N sentences.

        Args:
            boxes: (N, K, 4) left, top, right, bottom as shares of the photo's width and height, in [0, 1].
            absent: (N, K), True where there is no candidate; never all of a row.
            text: of the N sentences.
        """
        words, sentence = self.words(text.words), self.sentence(text.sentence)
        things = self.place(describe(boxes, absent)) + sentence[:, None]
        things = things + self.join(self._compare(things, describe_pairs(boxes), absent))
        for layer in self.rounds:
            things = layer(things, absent, words, text.key_padding_mask)
        meant = self.score(things).squeeze(2).masked_fill(absent, -torch.inf)
        kept = (~text.key_padding_mask).unsqueeze(2).to(words.dtype)
        pooled = (words * kept).sum(dim=1) / kept.sum(dim=1)
        return Choice(meant, self.every(torch.cat([text.sentence, pooled], dim=1)).squeeze(1))

    def _compare(self, things: Tensor, pairs: Tensor, absent: Tensor) -> Tensor:
        """What each candidate is beside the others, half of it as mean, half as maximum -> (N, K, C)."""
        count = things.shape[1]
        seen = self.pair(torch.cat([pairs, things[:, :, None].expand(-1, -1, count, -1)], dim=3))
        itself = torch.eye(count, dtype=torch.bool, device=things.device)
        hidden = (absent[:, None, :] | itself)[..., None]
        others = (~hidden).sum(dim=2).clamp_min(1)
        mean = seen.masked_fill(hidden, 0.0).sum(dim=2) / others
        lone = hidden.all(dim=2)
        most = seen.masked_fill(hidden, -1e4).amax(dim=2).masked_fill(lone, 0.0)
        return torch.cat([mean, most], dim=2)


def save(listener: Listener, folder: Path, card: str) -> None:
    """Write a listener and its card at `folder`, in half precision; raises FileExistsError if that is there already."""
    tensors = save_tensors({name: tensor.half().contiguous() for name, tensor in listener.state_dict().items()})
    config = {"format": _FORMAT, "model": "listener", "options": asdict(listener.options), "weights": sha256(tensors)}
    checkpoint_files.write(folder, tensors, config, card)


def load(folder: Path) -> Listener:
    """The listener in a folder, in evaluation mode, on the CPU.

    Raises CheckpointError if it is missing, damaged or of another version.
    """
    try:
        config, data = checkpoint_files.read_json(folder), (folder / WEIGHTS).read_bytes()
    except (CheckpointError, OSError) as error:
        raise CheckpointError(f"{folder} holds no listener: {error}.") from None
    if (
        not isinstance(config, dict)
        or config.get("format") != _FORMAT
        or config.get("model") != "listener"
        or sha256(data) != config.get("weights")
    ):
        raise CheckpointError(f"{folder} isn't a listener of this version, or is damaged. Fetch it again.")
    try:
        listener = Listener(checked(ListenerOptions, config.get("options")))
        listener.load_state_dict({name: tensor.float() for name, tensor in load_tensors(data).items()})
    except (SafetensorError, RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
        raise CheckpointError(f"{folder} doesn't fit this version: {error}") from None
    return listener.eval()


class _Round(nn.Module):
    """Candidates look at each other, then at the words; before each, layer normalisation."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.among, self.words = Attention(width, heads), Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mix = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, things: Tensor, absent: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        normed = self.norms[0](things)
        things = things + self.dropout(self.among(normed, normed, normed, absent))
        things = things + self.dropout(self.words(self.norms[1](things), words, words, padding))
        mixed: Tensor = things + self.dropout(self.mix(self.norms[2](things)))
        return mixed


def describe(boxes: Tensor, absent: Tensor) -> Tensor:
    """(N, K, 4), (N, K) as for `Listener.forward` -> (N, K, FEATURES): places, ranks, how many."""
    left, top, right, bottom = boxes.unbind(dim=2)
    across, down, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    area = width * height
    edges = [left < _EDGE, top < _EDGE, right > 1 - _EDGE, bottom > 1 - _EDGE]
    spread = [_spread(values, absent) for values in (across, down, area.sqrt(), bottom)]
    plain = [left, top, right, bottom, across, down, width, height, area.sqrt()]
    plain += [torch.log((width + 1e-3) / (height + 1e-3)), *(edge.to(boxes.dtype) for edge in edges), *spread]
    ranks = [_rank(values, absent) for values in (across, -across, down, -down, -area, area)]
    count = (~absent).sum(dim=1, keepdim=True).clamp(1, _RANKS).expand_as(absent) - 1
    told = [F.one_hot(rank, _RANKS).to(boxes.dtype) for rank in (*ranks, count)]
    return torch.cat([torch.stack(plain, dim=2), *told], dim=2)


def describe_pairs(boxes: Tensor) -> Tensor:
    """(N, K, 4) -> (N, K, K, PAIR_FEATURES): how the second of two boxes lies and how large it is beside the first."""
    first, second = boxes[:, :, None], boxes[:, None]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1e-3)
    apart = centre[:, None] - centre[:, :, None]
    edges = second - first
    ratio = torch.log(size[:, None] / size[:, :, None])
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp_min(0).prod(dim=3) / size.prod(dim=2)[:, :, None]
    return torch.cat([apart, edges, apart.sign(), ratio, ratio.sum(dim=3, keepdim=True), overlap[..., None]], dim=3)


def _rank(values: Tensor, absent: Tensor) -> Tensor:
    """(N, K) -> how many of the row's candidates come before each, at most `_RANKS` - 1."""
    before = (values[:, None, :] < values[:, :, None]) & ~absent[:, None, :]
    return before.sum(dim=2).clamp_max(_RANKS - 1)


def _spread(values: Tensor, absent: Tensor) -> Tensor:
    """(N, K) -> where each lies between the row's least and greatest, in [0, 1]; 0.5 where all are alike."""
    least = values.masked_fill(absent, torch.inf).amin(dim=1, keepdim=True)
    most = values.masked_fill(absent, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(most - least > 1e-6, (values - least) / (most - least).clamp_min(1e-6), 0.5)
