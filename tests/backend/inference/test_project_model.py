"""The version string: the same wherever it is made, another as soon as answers may be; and what is asked of a task."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint

from backend.home import interface_file, project_env_file, prompt_sheet_file
from backend.inference.project_model import ProjectModel, ProjectModels, answer_version, settings_digest
from backend.labelstudio.label_config import LabelConfig, parse
from backend.prompts.last_prompt import FileLastPrompt
from backend.prompts.sheet import EMPTY, PromptSheet, SheetError, edit_sheet
from backend.registry import Registry
from backend.settings import Settings, SettingsError

XML = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat" background="red"/><Label value="dog" alias="d"/>'
    '<Label value="other"/></BrushLabels></View>'
)
# Without a place to type.
SILENT = re.sub("<TextArea[^>]*>", "", XML)

Make = Callable[..., ProjectModel]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def registry(settings: Settings, weights: Path) -> Registry:
    return Registry(settings.home / "models", weights)


@pytest.fixture
def project_models(registry: Registry, settings: Settings) -> ProjectModels:
    return ProjectModels(registry, settings)


@pytest.fixture
def make(project_models: ProjectModels) -> Make:
    def make_project_model(xml: str = XML, project: int = 7) -> ProjectModel:
        return project_models.of_interface(project, xml)

    return make_project_model


def typed(text: str) -> dict[str, Any]:
    region = {"type": "textarea", "from_name": "prompt", "value": {"text": [text]}}
    return {"result": [region]}


def prompts_of(project_model: ProjectModel, task: dict[str, Any], **options: Any) -> tuple[list[str], str]:
    prompted = project_model.prompted(task, **options)
    return [request.prompt for request in prompted.requests], prompted.version.removeprefix(project_model.name)


# The version string


def test_it_is_the_models_name_and_six_digits(make: Make, registry: Registry) -> None:
    name = make().name
    assert re.fullmatch(re.escape(registry.base.name) + r"\.[0-9a-f]{6}", name)
    assert name.rpartition(".")[0] == registry.base.name


def test_it_is_the_same_in_another_process(make: Make) -> None:
    """Hashes of Python's own differ from process to process: this one is written down."""
    config = parse(XML)
    assert answer_version("lda-12345678", config, EMPTY, "0") == "lda-12345678.145021"
    assert make().name == make().name


@pytest.mark.parametrize(
    "change",
    [
        ("red", "blue"),
        ("<View>", '<View><Header value="Hello"/>'),
        ('value="cat"', 'value="cat" hotkey="1"'),
        ('toName="img"/>', 'toName="img" placeholder="What?"/>'),
    ],
)
def test_what_changes_no_answer_leaves_it(make: Make, change: tuple[str, str]) -> None:
    assert XML.replace(*change, 1) != XML
    assert make(XML.replace(*change, 1)).name == make().name


@pytest.mark.parametrize(
    "change",
    [
        ('value="cat"', 'value="kitten"'),
        ('alias="d"', 'alias="e"'),
        ('alias="d"', ""),
        ('value="cat"', 'value="cat" prompt="the cat"'),
        ('value="cat"', 'value="cat" prompts="the cat"'),
        ('value="cat"', 'value="cat" negative="the toy"'),
        ('value="cat"', 'value="cat" predicted_values="kitty"'),
        ('<BrushLabels name="brush"', '<BrushLabels objects="each" name="brush"'),
        ('name="brush"', 'name="masks"'),
        ("BrushLabels", "PolygonLabels"),
        ('value="$image"', 'value="$photo"'),
        ('<TextArea name="prompt"', '<TextArea value="$caption" name="prompt"'),
        ('<Label value="other"/>', ""),
    ],
)
def test_what_may_change_answers_changes_it(make: Make, change: tuple[str, str]) -> None:
    changed = XML.replace(*change)
    assert changed != XML
    assert make(changed).name != make().name


def test_the_prompt_sheet_changes_it(make: Make, settings: Settings) -> None:
    before = make().name
    for kind in ("prompts", "negatives", "aliases"):
        edit_sheet(settings.home, 7, lambda sheet, kind=kind: EMPTY.change("cat", **{kind: ["x"]}))
        assert make().name != before
    edit_sheet(settings.home, 7, lambda sheet: EMPTY)
    assert make().name == before


@pytest.mark.parametrize(
    "line",
    [
        "RIS_PRELABEL_LABELS=false",
        "RIS_PRELABEL_OBJECTS=each",
        "RIS_PRELABEL_TOLERANCE=3",
        "RIS_PRELABEL_SMALLEST=0.01",
    ],
)
def test_the_knobs_of_the_project_change_it(make: Make, settings: Settings, line: str) -> None:
    before, other = make().name, make(project=8).name
    file = project_env_file(settings.home, 7)
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert make().name != before
    assert make(project=8).name == other == before


def test_other_knobs_leave_it(make_settings: Callable[..., Settings]) -> None:
    changed = make_settings(port=1234, finetune_min_new=3, prelabel_remember=False, max_prompts=7)
    assert settings_digest(changed) == settings_digest(make_settings())


def test_a_promotion_changes_it(make: Make, registry: Registry, tmp_path: Path) -> None:
    before = make().name
    tuned = registry.promote(7, registry.add(7, random_checkpoint(tmp_path / "tuned", seed=1), {}).name)
    assert make().name == f"{tuned.name}.{before.rpartition('.')[2]}"


def test_a_given_version_answers_whatever_serves(
    project_models: ProjectModels, registry: Registry, tmp_path: Path
) -> None:
    tuned = registry.add(7, random_checkpoint(tmp_path / "tuned", seed=1), {})
    assert project_models.of(7, parse(XML), tuned).version == tuned


# What /versions says


def test_versions_are_those_that_setup_named(
    project_models: ProjectModels, make: Make, registry: Registry, tmp_path: Path
) -> None:
    assert project_models.versions() == project_models.versions(7) == [registry.base.name]
    project_models.note_interface(7, XML)
    first = make().name
    assert project_models.versions() == project_models.versions(7) == [first]
    registry.promote(7, registry.add(7, random_checkpoint(tmp_path / "tuned", seed=1), {}).name)
    assert project_models.versions(7) == [first, make().name]
    assert project_models.versions(8) == [registry.base.name]
    project_models.note_interface(8, SILENT)
    assert project_models.versions() == [first, make().name, make(SILENT, 8).name]


def test_the_interface_is_written_when_it_changes(project_models: ProjectModels, settings: Settings) -> None:
    file = interface_file(settings.home, 7)
    project_models.note_interface(7, XML)
    written = file.stat()
    project_models.note_interface(7, XML)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    project_models.note_interface(7, SILENT)
    assert file.read_text() == SILENT


def test_a_disk_that_takes_nothing_costs_no_setup(
    project_models: ProjectModels, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.home.mkdir()
    (settings.home / "projects").write_text("a file where a folder should be")
    project_models.note_interface(7, XML)
    assert "of project 7 isn't kept" in caplog.text


def test_many_at_once_leave_one_whole_interface(project_models: ProjectModels, settings: Settings) -> None:
    interfaces = [XML, SILENT] * 4
    writers = [threading.Thread(target=project_models.note_interface, args=(7, xml)) for xml in interfaces]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    folder = interface_file(settings.home, 7).parent
    assert [file.name for file in folder.iterdir()] == ["7.interface.xml"]
    assert interface_file(settings.home, 7).read_text() in (XML, SILENT)


def test_damaged_files_are_named(make: Make, settings: Settings) -> None:
    prompt_sheet_file(settings.home, 7).parent.mkdir(parents=True)
    prompt_sheet_file(settings.home, 7).write_text("{")
    with pytest.raises(SheetError, match=r"7\.prompts\.json"):
        make()
    prompt_sheet_file(settings.home, 7).unlink()
    project_env_file(settings.home, 7).write_text("RIS_PRELABEL_LABELS=maybe")
    with pytest.raises(SettingsError, match="RIS_PRELABEL_LABELS should be a valid boolean"):
        make()


# What is asked


def test_a_batch_asks_for_names_where_nothing_else_is_asked(make: Make, settings: Settings) -> None:
    assert prompts_of(make(), {"id": 1}) == (["cat", "dog"], "")
    assert prompts_of(make(), {"id": 1, "data": {"prompt": "the cat"}}) == (["the cat"], "")
    edit_sheet(settings.home, 7, lambda sheet: EMPTY.change("cat", prompts=["a kitty"]))
    assert prompts_of(make(), {"id": 1}) == (["a kitty"], "")


def test_a_project_may_not_want_names(make: Make, settings: Settings) -> None:
    file = project_env_file(settings.home, 7)
    file.parent.mkdir(parents=True)
    file.write_text("RIS_PRELABEL_LABELS=false")
    assert prompts_of(make(), {"id": 1}) == prompts_of(make(), {"id": 1}, opened=True) == ([], "")


def test_who_opens_a_task_is_left_to_type(make: Make) -> None:
    assert prompts_of(make(), {"id": 1}, opened=True) == ([], "#opened")
    assert prompts_of(make(SILENT), {"id": 1}, opened=True) == (["cat", "dog"], "")
    assert prompts_of(make(), {"id": 1, "data": {"prompt": "the cat"}}, opened=True) == (["the cat"], "")


def test_what_was_typed_is_tried_on_the_next_picture(make: Make) -> None:
    project_model = make()
    project_model.remember_prompt(typed("the black dog; not the cat"))
    [offered] = project_model.prompted({"id": 2}, opened=True).requests
    assert (offered.prompt, offered.negatives, offered.label.value) == ("the black dog", ("the cat",), "dog")
    assert (offered.source, offered.echo) == ("offered", "the black dog; not the cat")
    assert prompts_of(project_model, {"id": 2}, opened=True)[1] == "#offered"


def test_it_is_tried_nowhere_else(make: Make) -> None:
    make().remember_prompt(typed("the black dog"))
    assert prompts_of(make(), {"id": 2}) == (["cat", "dog"], "")
    assert prompts_of(make(), {"id": 2, "data": {"prompt": "the cat"}}, opened=True) == (["the cat"], "")
    assert prompts_of(make(), {"id": 2}, context={"result": []}) == ([], "")
    assert prompts_of(make(project=8), {"id": 2}, opened=True) == ([], "#opened")
    assert prompts_of(make(SILENT), {"id": 2}, opened=True) == (["cat", "dog"], "")


def test_it_is_tried_beside_what_is_asked_for_other_labels(make: Make, settings: Settings) -> None:
    edit_sheet(settings.home, 7, lambda sheet: EMPTY.change("cat", prompts=["a cat"]).change("dog", prompts=["a dog"]))
    make().remember_prompt(typed("the black dog"))
    assert prompts_of(make(), {"id": 2}, opened=True) == (["the black dog", "a cat"], "#offered")


def test_only_what_was_typed_is_remembered(make: Make) -> None:
    for context in ({"result": []}, {"result": [{"type": "keypoint", "value": {"x": 1, "y": 1}}]}):
        make().remember_prompt(context)
    assert prompts_of(make(), {"id": 2}, opened=True)[1] == "#opened"


def test_a_project_may_not_want_to_be_reminded(make: Make, settings: Settings) -> None:
    make().remember_prompt(typed("the black dog"))
    project_env_file(settings.home, 7).write_text("RIS_PRELABEL_REMEMBER=false")
    assert prompts_of(make(), {"id": 2}, opened=True)[1] == "#opened"
    FileLastPrompt(settings.home).remember(8, "kept")
    project_env_file(settings.home, 8).write_text("RIS_PRELABEL_REMEMBER=false")
    make(project=8).remember_prompt(typed("the black dog"))
    assert FileLastPrompt(settings.home).recall(8) == "kept"


def test_prompts_of_a_command(make: Make) -> None:
    requests = make().requests_from_command([("the kitty", "cat"), ("the dog; not the cat", None), ("the zebra", None)])
    fields = [(request.prompt, request.label.value, request.negatives, request.echo) for request in requests]
    assert fields == [
        ("the kitty", "cat", (), "the kitty"),
        ("the dog", "dog", ("the cat",), "the dog; not the cat"),
        ("the zebra", "other", (), "the zebra"),
    ]


def test_a_guess_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make().prompted({"id": 5}, typed("the zebra"))
    assert 'Task 5 of project 7: no label is called anything like "the zebra", so this is "other".' in caplog.text


def test_the_limits_are_those_of_the_settings(make_settings: Callable[..., Settings], registry: Registry) -> None:
    project_models = ProjectModels(registry, make_settings(max_prompts=1))
    with pytest.raises(Exception, match="RIS_MAX_PROMPTS"):
        project_models.of(7, parse(XML)).prompted({"id": 1, "data": {"prompts": ["a", "b"]}})


def test_the_defaults_of_the_settings_reach_the_interface(
    make_settings: Callable[..., Settings], registry: Registry
) -> None:
    project_models = ProjectModels(
        registry, make_settings(prelabel_objects="each", prelabel_tolerance=3, prelabel_smallest=0.1)
    )
    [control] = project_models.parse_interface(7, XML).controls
    assert (control.objects, control.tolerance, control.smallest) == ("each", 3.0, 0.1)


def test_a_config_and_a_sheet_of_ones_own_will_do() -> None:
    config: LabelConfig = parse(XML)
    sheet = PromptSheet().change("cat", prompts=["x"])
    assert answer_version("a", config, sheet, "0") != answer_version("a", config, EMPTY, "0")
    assert answer_version("a", config, sheet, "1") != answer_version("a", config, sheet, "0")
