"""What tuning makes of an encoder: itself, a copy that shares all but thin matrices, or a copy of its own."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from ris_core.encoders import image_encoder, text_encoder
from ris_core.encoders.adapters import merge, tune, with_room
from ris_core.encoders.base import ImageEncoder, TextEncoder, fingerprint
from ris_core.errors import InputError
from ris_core.models.lda import LDA
from ris_core.tuning import Tuning

Encoder = TypeVar("Encoder", ImageEncoder, TextEncoder)
SENTENCES = ["the cat", "a red cup on the table"]
MB = 1024**2


def encoders() -> tuple[ImageEncoder, TextEncoder]:
    return image_encoder("efficientnet-lite2"), text_encoder("minilm")


def every(encoder: nn.Module) -> dict[str, Tensor]:
    return dict(chain(encoder.named_parameters(), encoder.named_buffers()))


def trained(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}


def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255


def outputs(encoder: ImageEncoder | TextEncoder) -> list[Tensor]:
    if isinstance(encoder, ImageEncoder):
        return encoder(pixels())
    features = encoder(SENTENCES)
    return [features.words, features.sentence]


def train(encoder: ImageEncoder | TextEncoder, steps: int = 2) -> None:
    """Away from where the outputs are."""
    optimizer = torch.optim.AdamW(trained(encoder).values(), lr=1e-2)
    with torch.no_grad():
        targets = [output + 1 for output in outputs(encoder)]
    for _ in range(steps):
        optimizer.zero_grad()
        sum((a - b).square().mean() for a, b in zip(outputs(encoder), targets, strict=True)).backward()
        optimizer.step()


@pytest.fixture(params=["image", "text"])
def encoder(request: pytest.FixtureRequest) -> ImageEncoder | TextEncoder:
    image, text = encoders()
    return image if request.param == "image" else text


@pytest.fixture
def adapted(encoder: Encoder) -> Encoder:
    torch.manual_seed(0)
    return tune(encoder, Tuning("adapters", stages=2, text_stages=2, rank=4))


def test_frozen_is_the_encoder_itself(encoder: Encoder) -> None:
    assert tune(encoder, Tuning()) is encoder


def test_adapters_share_every_frozen_tensor(encoder: Encoder, adapted: Encoder) -> None:
    originals = {tensor.data_ptr() for tensor in every(encoder).values()}
    frozen = {name: tensor for name, tensor in every(adapted).items() if name not in trained(adapted)}
    assert {tensor.data_ptr() for tensor in frozen.values()} == originals
    assert len(frozen) == len(every(encoder))


def test_only_low_rank_matrices_in_the_last_stages_are_trained(encoder: Encoder, adapted: Encoder) -> None:
    weights = trained(adapted)
    assert weights
    assert all(".lora_" in name for name in weights)
    assert all(4 in weight.shape[:2] for weight in weights.values())
    inside = {id(weight) for stage in adapted.stages[-2:] for weight in stage.parameters()}
    assert {id(weight) for weight in weights.values()} <= inside
    assert not trained(encoder)
    assert not any(module.training for module in adapted.modules())


def test_each_linear_map_of_the_last_stages_is_adapted(encoder: Encoder, adapted: Encoder) -> None:
    maps = [
        module
        for module in encoder.stages[-2:].modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1)
    ]
    assert len(trained(adapted)) == 2 * len(maps)


def test_adapters_start_from_the_originals_output(encoder: Encoder, adapted: Encoder) -> None:
    for original, output in zip(outputs(encoder), outputs(adapted), strict=True):
        assert torch.equal(original, output)


def test_gradients_reach_both_matrices_of_each_adapter(adapted: Encoder) -> None:
    train(adapted, steps=2)
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in trained(adapted).values())


def test_training_adapters_leaves_the_original_untouched(encoder: Encoder, adapted: Encoder) -> None:
    print_before, before = fingerprint(encoder), [output.clone() for output in outputs(encoder)]
    train(adapted)
    assert fingerprint(encoder) == print_before
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(encoder), strict=True))
    assert not torch.allclose(before[-1], outputs(adapted)[-1], atol=1e-3)


def test_training_changes_the_tail_and_not_the_trunk() -> None:
    adapted = tune(image_encoder("efficientnet-lite2"), Tuning("adapters", stages=2))
    assert 0 < adapted.frozen == len(adapted.stages) - 2
    trunk, levels = adapted.trunk(pixels()), adapted(pixels())
    train(adapted)
    after = adapted.trunk(pixels())
    assert len(after.levels) == adapted.frozen
    assert torch.equal(trunk.state, after.state)
    assert all(torch.equal(a, b) for a, b in zip(trunk.levels, after.levels, strict=True))
    # What was kept of a photo is as good after training as before.
    tail = adapted.tail(trunk)
    assert all(torch.equal(a, b) for a, b in zip(tail, adapted(pixels()), strict=True))
    same = [torch.equal(a, b) for a, b in zip(levels, tail, strict=True)]
    assert same == [True] * adapted.frozen + [False] * 2


def test_two_versions_stand_side_by_side(encoder: Encoder, adapted: Encoder) -> None:
    other = tune(encoder, Tuning("adapters", stages=2, text_stages=2, rank=4))
    before = [output.clone() for output in outputs(other)]
    train(adapted)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(other), strict=True))
    assert not {w.data_ptr() for w in trained(adapted).values()} & {w.data_ptr() for w in trained(other).values()}


@pytest.fixture
def merged(encoder: Encoder, adapted: Encoder) -> Encoder:
    """What `adapted` learnt, in a copy for prediction."""
    train(adapted)
    merged = with_room(encoder, Tuning("adapters", stages=2, text_stages=2, rank=4))
    assert set(merged.load_state_dict(trained(adapted), strict=False).unexpected_keys) == set()
    merge(merged)
    return merged


def test_merged_adapters_are_the_same_function(encoder: Encoder, adapted: Encoder, merged: Encoder) -> None:
    for unmerged, output in zip(outputs(adapted), outputs(merged), strict=True):
        assert torch.allclose(unmerged, output, rtol=1e-4, atol=1e-4 * unmerged.abs().max().item())
    assert not torch.allclose(outputs(encoder)[-1], outputs(merged)[-1], atol=1e-3)


def test_merging_leaves_shared_tensors_alone(encoder: Encoder, merged: Encoder) -> None:
    before = fingerprint(encoder)
    other = with_room(encoder, Tuning("adapters", stages=2, text_stages=2, rank=4))
    assert all(torch.equal(a, b) for a, b in zip(outputs(encoder), outputs(other), strict=True))
    merge(other)
    assert fingerprint(encoder) == before
    originals = {tensor.data_ptr() for tensor in every(encoder).values()}
    changed = [name for name, tensor in every(merged).items() if tensor.data_ptr() not in originals]
    maps = {name.split(".lora_")[0] for name in trained(merged)}
    assert set(changed) == {f"{name}.weight" for name in maps} | trained(merged).keys()


def test_room_has_the_names_and_shapes_of_adapters(adapted: Encoder, encoder: Encoder) -> None:
    room = tune(with_room(encoder, Tuning("adapters", stages=2, text_stages=2, rank=4)), Tuning("adapters", stages=2))
    shapes = {name: weight.shape for name, weight in trained(adapted).items()}
    assert {name: weight.shape for name, weight in trained(room).items()} == shapes
    assert not any(module.training for module in room.modules())


@pytest.mark.parametrize(
    "tuning", [Tuning(), Tuning("full"), Tuning("adapters", text_stages=0)], ids=lambda t: t.encoders
)
def test_room_is_made_for_adapters_alone(tuning: Tuning) -> None:
    encoder = text_encoder("minilm")
    assert with_room(encoder, tuning) is encoder


def test_full_copies_everything(encoder: Encoder) -> None:
    whole = tune(encoder, Tuning("full"))
    originals = {tensor.data_ptr() for tensor in every(encoder).values()}
    assert not originals & {tensor.data_ptr() for tensor in every(whole).values()}
    assert set(trained(whole)) == {name for name, _ in encoder.named_parameters()}
    assert all(torch.equal(a, b) for a, b in zip(outputs(encoder), outputs(whole), strict=True))
    before = fingerprint(encoder)
    train(whole, steps=1)
    assert fingerprint(encoder) == before != fingerprint(whole)
    assert not trained(encoder)
    if isinstance(whole, ImageEncoder):
        assert whole.frozen == 0
        assert whole.trunk(pixels()).levels == ()


def test_more_stages_than_there_are_is_all() -> None:
    encoder = image_encoder("efficientnet-lite2")
    adapted = tune(encoder, Tuning("adapters", stages=99))
    assert adapted.frozen == 0
    assert trained(adapted).keys() == trained(tune(encoder, Tuning("adapters", stages=5))).keys()


@pytest.mark.parametrize("mode", ["adapters", "full"])
def test_a_text_encoder_may_stay_frozen(mode: str) -> None:
    encoder = text_encoder("minilm")
    assert tune(encoder, Tuning(mode, text_stages=0)) is encoder
    model = LDA(*encoders(), tuning=Tuning(mode, text_stages=0))
    image = trained(model.image_encoder)
    assert {name for name in model.own_state() if name.startswith("encoders.")} >= {f"encoders.0.{n}" for n in image}
    assert not any(name.startswith("encoders.1.") for name in model.state_dict())
    assert not trained(model.text_encoder)


@pytest.mark.parametrize(("stages", "rank"), [(0, 8), (-1, 8), (1, 0)])
def test_no_stage_or_no_rank_is_refused(stages: int, rank: int) -> None:
    with pytest.raises(InputError, match=rf"1 or more, not {stages} and {rank}"):
        Tuning("adapters", stages, rank=rank)


class Nested(ImageEncoder):
    """Its 3x3 convolutions bear names that end like that of its one linear map."""

    name = "nested"
    channels = strides = (8, 8)
    pyramid = (0, 0, 1)

    def __init__(self, size: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(8, 8, size, padding=size // 2))
        second = nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)))
        self.stages = nn.ModuleList([first, second])
        self.requires_grad_(False)

    def stem(self, pixels: Tensor) -> Tensor:
        return pixels[:, :1].expand(-1, 8, -1, -1)


def test_a_like_name_is_not_adapted() -> None:
    adapted = tune(Nested(1), Tuning("adapters", stages=2))
    assert {name.split(".lora_")[0] for name in trained(adapted)} == {"stages.0.0"}


def test_an_encoder_without_linear_maps_is_refused() -> None:
    with pytest.raises(InputError, match="last stages of nested hold no linear map"):
        tune(Nested(3), Tuning("adapters", stages=2))


@pytest.mark.parametrize("mode", ["frozen", "adapters", "full"])
def test_a_version_holds_what_it_may_change(mode: str) -> None:
    def model() -> LDA:
        torch.manual_seed(0)
        return LDA(*encoders(), tuning=Tuning(mode, stages=2))

    first, second = model(), model()
    own = first.own_state()
    decoder = {name for name in own if not name.startswith("encoders.")}
    assert decoder == LDA(*encoders()).own_state().keys()
    size = sum(tensor.numel() * tensor.element_size() for tensor in own.values()) / MB
    if mode == "full":
        assert size > 80
    else:
        assert size < 10
        assert all(".lora_" in name for name in own.keys() - decoder)
        assert bool(own.keys() - decoder) == (mode == "adapters")
    # Those tensors carry over all that the version learnt.
    with torch.no_grad():
        for weight in first.parameters():
            if weight.requires_grad:
                weight.add_(0.01)
    assert second.load_state_dict(first.own_state(), strict=False).unexpected_keys == []
    for one, other in (
        (first.image_encoder, second.image_encoder),
        (first.text_encoder, second.text_encoder),
    ):
        assert all(torch.equal(a, b) for a, b in zip(outputs(one), outputs(other), strict=True))


def test_frozen_models_never_import_peft() -> None:
    code = "import sys, ris_core.models, ris_core.encoders.adapters; print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_merging_needs_no_peft() -> None:
    code = (
        "import sys; from ris_core.encoders import image_encoder as get\n"
        "from ris_core.encoders.adapters import merge, with_room\n"
        "from ris_core.tuning import Tuning\n"
        "merge(with_room(get('efficientnet-lite0'), Tuning('adapters', stages=2))); print('peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
