"""What stands around the designs: what all share, the decoder of clicks, the listener, and the loop of learning."""

from __future__ import annotations

import torch
from drawing.card import Card, CardError, Kind
from drawing.designs import LEGEND, WIDTH, chain, rows
from drawing.measured import CANVAS, INDEX, SENTENCES, run, shape, size, watched

from backend.settings import Settings
from ris_core.models import MODELS
from ris_core.models.interactive import InteractiveDecoder, VisualPrompts
from ris_core.models.listener import Listener, describe, describe_pairs

CLICKS = 6
CANDIDATES = 5


def shared() -> Card:
    """Two encoders, one of four designs, what it answers; beside it what reads no sentence, or no photo."""
    runs = {name: run(name) for name in MODELS}
    measured = runs["lda"]
    image, text = measured.model.image_encoder, measured.model.text_encoder
    clicks = InteractiveDecoder(image.channels, image.strides)
    card = Card(
        WIDTH,
        752,
        "What the four designs share",
        "An image encoder makes levels of a photo, a text encoder words and a vector of a sentence; a design makes a "
        "mask, presence and quality of both. Clicks are answered from the same levels.",
    )
    photo = card.box(24, 24, 280, "photo", shape(measured.pixels), kind="image")
    sentence = card.box(336, 24, 280, "sentence", "the small cup on the left side", kind="text")
    strides = ", ".join(map(str, image.strides))
    seen = card.box(
        24,
        110,
        280,
        "image encoder",
        f"{image.name}, {size(image.parameters())}",
        f"levels at strides {strides}",
        kind="image",
    )
    read = card.box(
        336,
        110,
        280,
        "text encoder",
        f"{text.name}, {size(text.parameters())}",
        f"words {shape(measured.text.words)}, vector {text.width}",
        kind="text",
    )
    once = card.box(24, 222, 280, "what the design keeps", "once a photo, for all sentences", kind="image")
    sizes = [f"{name.upper()} {size(model.model.parameters())}" for name, model in runs.items()]
    design = card.box(24, 314, 592, "how both meet", ", ".join(sizes[:2]), ", ".join(sizes[2:]), kind="joint")
    given = rows(
        card,
        24,
        [428],
        186,
        [("mask", shape(measured.answer.mask))],
        "answer",
    )[0]
    presence = card.box(227, 428, 186, "presence", "is it there at all, N", kind="answer")
    quality = card.box(430, 428, 186, "quality", "IoU to expect, N", kind="answer")
    score = card.box(227, 520, 389, "score", "the IoU to expect of the whole answer", kind="answer")
    card.panel(16, 604, 608, 104, "beside them, for every design")
    card.box(24, 640, 280, "clicks, a box, a mask", f"read the levels: {size(clicks.parameters())}", kind="image")
    card.box(336, 640, 280, "the listener", f"words and boxes: {size(Listener().parameters())}", kind="text")
    card.arrow(photo.below(), seen.above())
    card.arrow(sentence.below(), read.above())
    card.arrow(seen.below(), once.above())
    card.arrow(once.below(), (once.below()[0], design.area.top))
    card.arrow(read.below(), (read.below()[0], design.area.top))
    for box in (given, presence, quality):
        card.arrow((box.above()[0], design.area.bottom), box.above())
    for box in (presence, quality):
        card.arrow(box.below(), (box.below()[0], score.area.top))
    card.label(24, 734, LEGEND, 13)
    return card


def clicks() -> Card:
    """Levels at the left, the prompts' maps in the middle, the way from coarse to fine at the right."""
    measured = run("lda")
    image = measured.model.image_encoder
    torch.manual_seed(0)
    decoder = InteractiveDecoder(image.channels, image.strides).eval()
    count = len(SENTENCES)
    prompts = VisualPrompts(
        torch.full((count, CLICKS, 2), 100.0),
        torch.ones(count, CLICKS, dtype=torch.int64),
        torch.full((count, 4), torch.nan),
        torch.zeros(count, 1, CANVAS[0] // 4, CANVAS[1] // 4),
    )
    with torch.inference_mode():
        levels = decoder.read_levels(measured.levels, torch.ones(len(measured.pixels), 1, *CANVAS))
        given, outputs = watched(decoder, lambda: decoder(levels, prompts, torch.tensor(INDEX)))
    card = Card(
        WIDTH,
        760,
        "Clicks, a box, an earlier mask",
        "Prompts are drawn as maps on the grid of each level of the image encoder, joined to the level and decoded "
        "from coarse to fine. The answer is the earlier mask of the next click.",
    )
    photo = card.box(24, 24, 180, "image encoder", shape(measured.pixels), kind="image")
    points = {CLICKS: "P"}
    asked = card.box(
        236,
        24,
        292,
        "prompts",
        f"clicks {shape(prompts.points, points)}, boxes {shape(prompts.boxes)}",
        f"earlier mask {shape(prompts.mask)}",
        kind="text",
    )
    tops = [180 + number * 78 for number in range(len(levels))]
    panel = card.panel(16, 136, 206, 440, "levels, kept")
    order = range(len(levels) - 1, -1, -1)
    kept = rows(
        card, 24, tops, 190, [(shape(levels[n].features), f"keys of {levels[n].keys.shape[1]}") for n in order], "image"
    )
    maps = decoder.prompt[0].in_channels
    if maps != 6 + 2 + 1 + 3:
        raise CardError(f"the decoder reads {maps} maps: say anew what they are")
    drawn = card.box(
        246,
        180,
        122,
        f"{maps} maps",
        "at each grid:",
        "6 of clicks,",
        "2 of the box,",
        "the mask;",
        "3 of likeness",
        "to what is",
        "pointed at",
        kind="joint",
        height=367,
    )
    card.panel(388, 136, 206, 440, "coarse to fine")
    refined = rows(card, 396, tops, 190, [(shape(outputs[f"refine.{n}"]), "refine") for n in order], "joint")
    answer = card.box(
        246, 606, 348, "answer", f"mask logits {shape(given.mask)}", "quality N; there is no presence", kind="answer"
    )
    card.arrow(photo.below(), (photo.below()[0], panel.area.top))
    card.arrow(asked.below(71 / 292), drawn.above())
    for one, other in zip(kept, refined, strict=True):
        card.arrow(one.right(), (drawn.area.left, one.right()[1]))
        card.arrow((drawn.area.right, one.right()[1]), other.left())
    chain(card, refined)
    card.arrow(refined[-1].below(), (refined[-1].below()[0], answer.area.top))
    card.arrow(answer.right(), (612, answer.right()[1]), (612, asked.right()[1]), asked.right(), dashed=True)
    card.label(24, 712, "Dashed: with the next click, the answer is the earlier mask.", 13)
    card.label(24, 738, f"N prompts of P clicks, B photos; {size(decoder.parameters())} parameters.", 13)
    return card


def listener() -> Card:
    """Boxes at the left, words at the right, rounds in which candidates look at both."""
    torch.manual_seed(0)
    model = Listener().eval()
    measured = run("lda")
    boxes = torch.rand(len(SENTENCES), CANDIDATES, 4).sort(dim=2).values
    absent = torch.zeros(len(SENTENCES), CANDIDATES, dtype=torch.bool)
    symbols = {CANDIDATES: "K"}
    with torch.inference_mode():
        described, described_pairs = describe(boxes, absent), describe_pairs(boxes)
        choice, outputs = watched(model, lambda: model(boxes, absent, measured.text))

    def of(name: str) -> str:
        return shape(outputs[name], symbols)

    card = Card(
        WIDTH,
        624,
        "The listener",
        "Boxes of candidates and words of the sentence: candidates are described by where they lie, compared with each "
        "other and look at the words; each gets a score, and all of them together one.",
    )
    candidates = card.box(24, 24, 370, "boxes of K candidates", shape(boxes, symbols), kind="image")
    text = card.box(426, 24, 190, "text encoder", "frozen", kind="text")
    pairs = card.box(24, 112, 175, "pairs", shape(described_pairs, symbols), kind="image")
    place = card.box(219, 112, 175, "places, ranks", shape(described, symbols), kind="image")
    vector = card.box(426, 112, 130, "vector", of("sentence"), kind="text")
    things = card.box(219, 210, 175, "place + vector", of("place"), kind="joint")
    compared = card.box(24, 210, 175, "compared", of("pair"), kind="joint")
    joined = card.box(24, 308, 370, "each beside the others", of("join"), kind="joint")
    words = card.box(426, 308, 190, "words", of("words"), kind="text")
    rounds = card.box(
        24,
        406,
        370,
        f"{len(model.rounds)} rounds",
        "look at each other, then at the words",
        of(f"rounds.{len(model.rounds) - 1}"),
        kind="joint",
    )
    meant = card.box(24, 522, 370, "which one is meant", shape(choice.meant, symbols), kind="answer")
    every = card.box(426, 522, 190, "all of them are", shape(choice.every), kind="answer")
    card.arrow((pairs.above()[0], candidates.area.bottom), pairs.above())
    card.arrow((place.above()[0], candidates.area.bottom), place.above())
    card.arrow((vector.above()[0], text.area.bottom), vector.above())
    card.arrow((590, text.area.bottom), (590, words.area.top))
    card.arrow(place.below(), things.above())
    card.arrow(vector.below(), (vector.below()[0], things.right()[1]), things.right())
    card.arrow(pairs.below(), compared.above())
    card.arrow(things.left(), compared.right())
    for box in (compared, things):
        card.arrow(box.below(), (box.below()[0], joined.area.top))
    card.arrow(joined.below(), rounds.above())
    card.arrow(words.below(0.2), (words.below(0.2)[0], rounds.right()[1]), rounds.right())
    card.arrow(words.below(0.8), (words.below(0.8)[0], every.area.top))
    card.arrow(rounds.below(), meant.above())
    card.label(24, 606, f"N sentences of L words; {size(model.parameters())} parameters. It sees no photo.", 13)
    return card


def loop() -> Card:
    """From a typed sentence to a version that answers the next one."""
    knobs = {name: field.default for name, field in Settings.model_fields.items()}
    card = Card(
        WIDTH,
        716,
        "The loop",
        "A sentence becomes a mask, a person corrects it, corrections become a snapshot, the model is fine-tuned on "
        "it, and a gate decides whether the new version answers from then on.",
    )
    steps: list[tuple[str, str, Kind]] = [
        ("sentence", "typed in Label Studio, or of a batch", "text"),
        ("mask", "by the version in production", "image"),
        ("correction", "drawn, changed, rejected, accepted", "text"),
        ("snapshot", "all annotations, immutable", "image"),
        ("fine-tuning", f"once {knobs['finetune_min_new']} corrections are new", "joint"),
        ("gate", "both versions are asked the same", "joint"),
        ("promotion", "the new version answers", "answer"),
    ]
    boxes = [
        card.box(60, 24 + number * 97, 320, title, line, kind=kind) for number, (title, line, kind) in enumerate(steps)
    ]
    chain(card, boxes)
    mask, snapshot, gate, promotion = boxes[1], boxes[3], boxes[5], boxes[6]
    held_out = card.box(420, snapshot.area.top, 196, "held out", "never trained on", kind="image")
    trial = card.box(
        420, promotion.area.top, 196, "trial", "kept, to be promoted", "by hand or not at all", kind="answer"
    )
    card.arrow(snapshot.right(), held_out.left())
    card.arrow(held_out.below(), (held_out.below()[0], gate.right(0.3)[1]), gate.right(0.3))
    card.arrow(gate.right(0.7), (450, gate.right(0.7)[1]), (450, trial.area.top))
    card.label(462, 590, "worse, or too few")
    card.label(232, 595, "no worse")
    card.arrow(promotion.left(), (32, promotion.left()[1]), (32, mask.left()[1]), mask.left())
    return card
