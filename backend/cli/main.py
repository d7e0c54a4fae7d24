"""`ris`: the commands. Each is a thin door to a service; heavy modules are imported when a command needs them."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from ris_core.errors import InputError, RisError

app = typer.Typer(
    name="ris",
    help="Type a sentence, get the mask, correct it, and the model learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Model = Annotated[
    Optional[str], typer.Option(help="Folder of a checkpoint, or a model's name.", show_default="the shipped one")
]

Project = Annotated[int, typer.Option(help="Number of the project in Label Studio, as in its address.")]


Batch = Annotated[str, typer.Argument(help="A batch's id, see `ris jobs`.")]


Version = Annotated[str, typer.Argument(help="A version's name, see `ris versions`.")]


class Tuned(StrEnum):
    """What `ris train` may change of the encoders."""

    frozen = "frozen"
    adapters = "adapters"
    full = "full"


class Precision(StrEnum):
    """Of the passes through a model in training."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Ranked(StrEnum):
    """What scores can go by; see backend/active_learning/strategies.py."""

    confidence = "confidence"
    uncertainty = "uncertainty"
    disagreement = "disagreement"
    diversity = "diversity"
    coverage = "coverage"
    random = "random"
    mixed = "mixed"


class Work(StrEnum):
    """What a worker does."""

    training = "training"
    batches = "batches"


class Convention(StrEnum):
    """How `ris evaluate` compares pixels."""

    original = "original"
    lavt = "lavt"


Accepted = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the targets that are to be answered, and not refused.")
]

# Of `ris train`: what isn't given is as in --from, so none has a value of its own.
Encoders = Annotated[
    Optional[Tuned], typer.Option(help="What is trained of the encoders.", show_default="as in --from, else frozen")
]
Stages = Annotated[
    Optional[int],
    typer.Option(
        min=1, help="Last stages of the image encoder that get adapters.", show_default="as in --from, else 1"
    ),
]
TextStages = Annotated[
    Optional[int],
    typer.Option(min=0, help="The same of the text encoder; 0 leaves it frozen.", show_default="as in --from, else 1"),
]
Rank = Annotated[Optional[int], typer.Option(min=1, help="Rank of the adapters.", show_default="as in --from, else 8")]

DATASET = "A folder with images/, instances.json and refs.json, or KIND:FOLDER, such as phrasecut:/data."

WITHOUT = "On the command line"
LOOP = "In Label Studio"
BATCHES = "Pre-labelling"
VERSIONS = "Versions of the model"
MODELS = "Models and data"


@app.command(rich_help_panel=WITHOUT)
def segment(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    prompts: Annotated[list[str], typer.Argument(help='What to find: "the cat" "the cup".')],
    out: Annotated[Optional[Path], typer.Option(help="Folder for the pictures.", show_default="PHOTO-masks")] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Find things in a photo: masks, an overlay picture and a table."""
    from backend.cli import models

    models.segment_photo(photo, prompts, out, model, json)


@app.command(rich_help_panel=MODELS)
def models(json: Json = False) -> None:
    """List the models, their encoders and the weights at hand."""
    from backend.cli import models

    models.list_models(json)


@app.command(rich_help_panel=MODELS)
def fetch(
    name: Annotated[str, typer.Argument(help="An encoder, see `ris models`.")],
    file: Annotated[
        Optional[Path],
        typer.Option(help="The downloaded file, or a folder of the hub's files.", show_default="download"),
    ] = None,
) -> None:
    """Fetch an encoder's published weights, check them and keep them."""
    from backend.cli import models

    models.fetch_encoder(name, file)


@app.command(rich_help_panel=MODELS)
def evaluate(
    dataset: Annotated[Path, typer.Option(help=DATASET)],
    split: Annotated[Optional[str], typer.Option(help="Only this split, such as test.", show_default="all")] = None,
    model: Model = None,
    convention: Annotated[
        Convention,
        typer.Option(
            help="original: at the photos' own size; lavt: in a square, with thresholds of 0.5, as LAVT counts."
        ),
    ] = Convention.original,
    pictures: Annotated[Optional[Path], typer.Option(help="Folder for pictures of good and bad answers.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Read each photo mirrored too, and average.")] = False,
    json: Json = False,
) -> None:
    """Measure a model on a dataset."""
    from backend.cli import evaluation

    evaluation.evaluate_folder(dataset, split, model, convention.value, pictures, json, flip)


@app.command(rich_help_panel=MODELS)
def calibrate(
    dataset: Annotated[list[Path], typer.Option(help=f"{DATASET} Give it again for more.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
    model: Model = None,
    accepted: Accepted = 0.95,
    balance: Annotated[
        bool, typer.Option("--balance", help="Answer as large a share of the targets as is refused of what is absent.")
    ] = False,
) -> None:
    """Choose anew, on validation splits, from which probability a thing is there and a pixel is its own."""
    from backend.cli import evaluation

    evaluation.calibrate_model(model, dataset, out, None if balance else accepted)


@app.command(rich_help_panel=MODELS)
def average(
    models: Annotated[list[str], typer.Argument(help="Folders of checkpoints made alike, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
) -> None:
    """Average the weights of checkpoints that were trained from one start."""
    from backend.cli import evaluation

    evaluation.average_models(models, out)


@app.command(rich_help_panel=MODELS)
def train(
    dataset: Annotated[list[Path], typer.Option(help=f"{DATASET} Give it again for more.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; it must not exist.")],
    run: Annotated[Path, typer.Option(help="Folder for the run's state; a run that died goes on.")] = Path(
        "runs/train"
    ),
    model: Annotated[str, typer.Option(help="lda, vipa, maris or haris; see `ris models`.")] = "lda",
    image_encoder: Annotated[str, typer.Option(help="See `ris models`.")] = "efficientnet-lite2",
    text_encoder: Annotated[str, typer.Option(help="See `ris models`.")] = "minilm",
    option: Annotated[
        Optional[list[str]], typer.Option(help="A switch of the model, NAME=VALUE; `ris models --json` lists them.")
    ] = None,
    start: Annotated[
        Optional[Path], typer.Option("--from", help="Checkpoint to train further, instead of --model from scratch.")
    ] = None,
    encoders: Encoders = None,
    stages: Stages = None,
    text_stages: TextStages = None,
    rank: Rank = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the photos.")] = 10,
    photos: Annotated[int, typer.Option(min=1, help="Photos of a batch.")] = 8,
    present: Annotated[
        int, typer.Option(min=1, help="Expressions asked of a photo in each pass, of what is there.")
    ] = 2,
    absent: Annotated[int, typer.Option(min=0, help="Expressions asked of a photo in each pass, of what isn't.")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate at its highest.")] = 1e-3,
    side: Annotated[int, typer.Option(min=96, help="Longer side of a photo in pixels, a multiple of 96.")] = 384,
    views: Annotated[
        int,
        typer.Option(
            min=0, help="Fixed views of each photo, encoded once: quicker, less varied. 0: a new view each time."
        ),
    ] = 0,
    paste: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that a thing of another photo is laid over a photo.")
    ] = 0.0,
    precision: Annotated[
        Precision, typer.Option(help="Of the passes through the model; half is for GPUs.")
    ] = Precision.float32,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches whose gradients make one step.")] = 1,
    validate: Annotated[
        bool, typer.Option(help="After each pass, figures and overlays of a few validation photos, into the run.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same weights.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read photos ahead.")] = 1,
    accepted: Accepted = 0.95,
) -> None:
    """Train on datasets; from which probability a thing counts as there is fixed on their validation splits."""
    from backend.cli import models
    from ris_core.training.recipe import Recipe

    recipe = Recipe(
        epochs,
        photos,
        present,
        absent,
        side=side,
        views=views,
        rate=rate,
        accumulate=accumulate,
        precision=precision.value,
        seed=seed,
        workers=workers,
        paste=paste,
    )
    tuning = models.tuning_from(
        start, encoders=encoders and encoders.value, stages=stages, text_stages=text_stages, rank=rank
    )
    design = models.Design(model, image_encoder, text_encoder, models.parse_options(model, option or []))
    models.train_model(dataset, out, run, start or design, tuning, recipe, accepted, validate)


@app.command(rich_help_panel=MODELS)
def convert(
    kind: Annotated[str, typer.Argument(help="ccp (Clothing Co-Parsing) or coco (COCO's instances).")],
    source: Annotated[Path, typer.Argument(help="The dataset as it was downloaded.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    mosaics: Annotated[int, typer.Option(min=0, help="Pictures to add, each of two training photos (coco).")] = 0,
) -> None:
    """Turn a public dataset into a dataset folder: names, expressions derived from masks and pixels, absent things."""
    from backend.cli import models

    models.convert(kind, source, out, mosaics)


@app.command(rich_help_panel=LOOP)
def up() -> None:
    """Start Label Studio, Valkey, the backend and its workers, connected; Ctrl-C stops them."""
    from backend.local import up

    sys.exit(up.up(home()))


@app.command(rich_help_panel=LOOP)
def demo() -> None:
    """Run the whole loop without a person: pre-label, correct, learn, promote, export."""
    from backend.local import demo, up

    sys.exit(up.during(home(), demo.run))


@app.command(rich_help_panel=LOOP)
def connect(
    project: Annotated[Optional[int], typer.Option(help="Number of a project that is there already.")] = None,
    title: Annotated[Optional[str], typer.Option(help="Title of the project; it is made if there is none.")] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(help="File with the new project's labelling interface.", show_default="the sample's"),
    ] = None,
    json: Json = False,
) -> None:
    """Connect the backend to a project of Label Studio; again: check the connection."""
    from backend.cli import projects
    from backend.settings import load

    projects.connect_project(load(), project, title, config, json)


@app.command(rich_help_panel=BATCHES)
def prompts(
    project: Project,
    set: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt | another": how a label is asked for.')
    ] = None,
    negative: Annotated[
        Optional[list[str]], typer.Option(help='LABEL="a prompt": what is taken away from its masks.')
    ] = None,
    alias: Annotated[Optional[list[str]], typer.Option(help='LABEL="a name": what else it is called.')] = None,
    file: Annotated[
        Optional[Path], typer.Option(help="A whole sheet, .json or .csv, instead of what is there.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Begin with an empty sheet.")] = False,
    json: Json = False,
) -> None:
    """Show or change the prompts that a project's batches ask for; LABEL= takes a label's away."""
    from backend.cli import projects
    from backend.settings import load

    projects.edit_prompts(load(project), project, set or [], negative or [], alias or [], file, clear, json)


@app.command(rich_help_panel=LOOP)
def finetune(project: Project, json: Json = False) -> None:
    """Learn from a project's corrections now, however few are new."""
    from backend.cli import learning
    from backend.settings import load

    learning.finetune(load(), project, json)


@app.command(rich_help_panel=LOOP)
def corrections(project: Project, json: Json = False) -> None:
    """Say how annotators took the predictions: accepted, corrected, drawn by hand or absent, by label and version."""
    from backend.cli import acceptance
    from backend.settings import load

    acceptance.show(load(), project, json)


@app.command(rich_help_panel=LOOP)
def export(
    project: Project,
    format: Annotated[str, typer.Option(help="coco: images, instances.json, and refs.json with the prompts.")] = "coco",
    name: Annotated[
        Optional[str], typer.Option(help="Folder below .ris/exports.", show_default="project-N-FORMAT")
    ] = None,
    json: Json = False,
) -> None:
    """Export a project's annotations as a dataset: masks exact, prompts beside them."""
    from backend.cli import learning
    from backend.settings import load

    learning.export(load(), project, format, name, json)


@app.command(rich_help_panel=BATCHES)
def prelabel(
    project: Project,
    view: Annotated[
        Optional[int], typer.Option(help="Number of a tab of the project: what it shows, or what is ticked in it.")
    ] = None,
    prompt: Annotated[
        Optional[list[str]], typer.Option(help="Ask this of every task, instead of its own. Give it again for more.")
    ] = None,
    label: Annotated[
        Optional[str], typer.Option(help="Label of what is found.", show_default="the prompt names it")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Predict again what the version has predicted.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Don't wait.")] = False,
    json: Json = False,
) -> None:
    """Predict a project's tasks in the background, however many they are."""
    from backend.cli import batches

    batches.prelabel(project, view, prompt or [], label, force, detach, json)


@app.command(rich_help_panel=BATCHES)
def refresh(project: Project) -> None:
    """Predict anew, by the version in production, all that isn't annotated; then Label Studio orders tasks by that."""
    from backend.cli import batches
    from backend.settings import load

    batches.refresh(load(), project)


@app.command(rich_help_panel=BATCHES)
def rank(
    project: Project,
    strategy: Annotated[
        Optional[Ranked], typer.Option(help="What is to be labelled first.", show_default="RIS_PRELABEL_SCORE")
    ] = None,
    json: Json = False,
) -> None:
    """Order a project's tasks by what to label next: new scores for its predictions, without predicting."""
    from backend.cli import batches
    from backend.settings import load

    batches.rank(load(project), project, strategy and strategy.value, json)


@app.command(rich_help_panel=BATCHES)
def jobs(json: Json = False) -> None:
    """List what is pre-labelled in the background, and the workers' jobs."""
    from backend.cli import batches
    from backend.settings import load

    batches.show(load(), json)


@app.command(rich_help_panel=BATCHES)
def cancel(batch: Batch) -> None:
    """Stop pre-labelling a batch; what is predicted stays."""
    from backend.cli import batches
    from backend.settings import load

    batches.cancel(load(), batch)


@app.command(rich_help_panel=BATCHES)
def resume(batch: Batch) -> None:
    """Go on with a batch that was cancelled, or try again what failed in one."""
    from backend.cli import batches
    from backend.settings import load

    batches.resume(load(), batch)


@app.command(rich_help_panel=BATCHES)
def job(job: Annotated[str, typer.Argument(help="A job's id, see `ris jobs`.")]) -> None:
    """Show how a job goes, as JSON."""
    from backend.cli import learning
    from backend.settings import load

    learning.show_job(load(), job)


@app.command(rich_help_panel=LOOP)
def doctor(
    project: Annotated[
        Optional[int], typer.Option(help="Number of the project in Label Studio.", show_default="only what needs none")
    ] = None,
    json: Json = False,
) -> None:
    """Try each link from the settings to the masks in Label Studio, and say what to do where one is broken."""
    from backend import doctor

    if not doctor.run(project, json):
        raise typer.Exit(1)


@app.command(rich_help_panel=VERSIONS)
def versions(project: Project, json: Json = False) -> None:
    """List a project's versions of the model: what each came from, what the gate said, which is in production."""
    from backend.cli import versions as services
    from backend.settings import load

    services.list_versions(load(), project, json)


@app.command(rich_help_panel=VERSIONS)
def promote(version: Version, project: Project) -> None:
    """Put a version into production, whatever the gate said of it."""
    from backend.cli import versions as services
    from backend.settings import load

    services.promote(load(), project, version)


@app.command(rich_help_panel=VERSIONS)
def rollback(project: Project) -> None:
    """Take the version in production back: the one before it serves again. Once more: the one before that."""
    from backend.cli import versions as services
    from backend.settings import load

    services.rollback(load(), project)


@app.command(rich_help_panel=VERSIONS)
def compare(
    before: Version,
    after: Version,
    project: Project,
    out: Annotated[Optional[Path], typer.Option(help="Folder for pictures of what changed most.")] = None,
    json: Json = False,
) -> None:
    """Compare two versions on the held-out expressions of the newest snapshot."""
    from backend.cli import versions as services
    from backend.settings import load

    services.compare(load(project), project, (before, after), out, json)


@app.command(rich_help_panel=VERSIONS)
def prune(
    project: Project,
    keep: Annotated[int, typer.Option(min=0, help="Versions to keep beside those that are needed.")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what would go.")] = False,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Old predictions in Label Studio instead of versions.")
    ] = False,
) -> None:
    """Delete old versions and the snapshots that only they came from; what serves or may serve again stays."""
    from backend.cli import prune
    from backend.cli import versions as services
    from backend.settings import load

    if predictions:
        prune.prune_predictions(load(), project, yes)
    else:
        services.prune(load(), project, keep, yes)


@app.command(rich_help_panel=LOOP)
def suspects(
    project: Project,
    count: Annotated[int, typer.Option(min=1, help="Most that are shown.")] = 20,
    pictures: Annotated[
        Optional[Path], typer.Option(help="Folder for pictures of them: both masks on the photo.")
    ] = None,
    json: Json = False,
) -> None:
    """List corrections that are probably wrong: the version in production is sure of something else."""
    from backend.cli import label_errors as services
    from backend.settings import load

    services.show_suspects(load(), project, count, pictures, json)


@app.command(rich_help_panel=LOOP)
def worker(
    only: Annotated[
        Optional[Work], typer.Option(help="Learn and nothing else, or all but that.", show_default="everything")
    ] = None,
) -> None:
    """Run one worker, which pre-labels, learns and exports; `ris up` starts two by itself, one of each kind."""
    from backend.jobs.worker import run_worker
    from backend.settings import load

    run_worker(load(), only=only and only.value)


def home() -> Path:
    """The folder where everything is kept: RIS_HOME, else .ris here."""
    return Path(os.environ.get("RIS_HOME") or ".ris")


def main() -> None:
    """Run `ris`; an error of ours becomes one sentence and an exit code: 2 for bad input, 1 for the rest."""
    try:
        app()
    except RisError as error:
        print(f"ris: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
