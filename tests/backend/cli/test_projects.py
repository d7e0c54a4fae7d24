"""`ris connect` and `ris prompts`: what they do, what they print, and one sentence for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from labelstudio.site import Site
from registrations import Studio

from backend.home import interface_file
from backend.projects.connect import LABEL_CONFIG
from backend.prompts.sheet import load_sheet
from backend.settings import load

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / ".ris"


@pytest.fixture
def ris(
    site: Site,
    home: Path,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    run_ris: Run,
) -> Run:
    """Run a command beside that Label Studio -> exit code, standard output, standard error."""
    monkeypatch.chdir(home.parent)
    home.mkdir()
    (home / "ris.env").write_text(
        f"RIS_LABEL_STUDIO_URL={site.url}\nRIS_LABEL_STUDIO_TOKEN=token\nRIS_PASSWORD=pass\nRIS_WEBHOOK_SECRET=hook\n"
    )
    return run_ris


def test_connect_says_what_it_did(ris: Run, studio: Studio, site: Site) -> None:
    code, out, _ = ris("connect", "--title", "Street scenes")
    assert code == 0
    assert out.splitlines() == [
        'Project 1, "Street scenes", was made.',
        'Project 1, "Street scenes", has the backend at http://127.0.0.1:9090/projects/1 now.',
        "Webhook 1 tells it of annotations, with the secret header.",
        'Prompts are typed in the TextArea "prompt".',
        f"Open {site.url}/projects/1/data",
    ]
    code, out, _ = ris("connect", "--project", "1")
    assert code == 0
    assert "checked and given its password again" in out and "was made" not in out
    assert len(studio.projects) == len(studio.backends) == len(studio.webhooks) == 1


def test_the_box_for_prompts_can_be_chosen_and_is_kept(ris: Run, studio: Studio, tmp_path: Path) -> None:
    """A lone box that is neither named so nor smart is for remarks, unless somebody says otherwise."""
    xml = LABEL_CONFIG.replace('name="prompt"', 'name="ask"').replace('smart="true" smartOnly="true"', "")
    studio.add(studio.projects, {"title": "Old", "label_config": xml})
    assert '"ask" is taken for remarks: --prompt-box NAME chooses one' in ris("connect", "--project", "1")[1]
    code, _, complaint = ris("connect", "--project", "1", "--prompt-box", "notes")
    assert (code, "has ask." in complaint) == (1, True)
    for arguments in (("--prompt-box", "ask"), ()):
        code, out, _ = ris("connect", "--project", "1", *arguments)
        assert (code, 'Prompts are typed in the TextArea "ask".' in out) == (0, True)
    assert load(1).prompt_box == "ask"


def test_connect_says_where_a_backend_was_moved_from(ris: Run, studio: Studio) -> None:
    studio.add(studio.projects, {"title": "Old", "label_config": LABEL_CONFIG})
    studio.backend(project=1, title="RIS", url="http://127.0.0.1:9090")
    _, out, _ = ris("connect", "--project", "1")
    assert "moved from http://127.0.0.1:9090 to http://127.0.0.1:9090/projects/1." in out


def test_a_made_project_gets_the_given_interface_and_keeps_it(ris: Run, studio: Studio, tmp_path: Path) -> None:
    interface = LABEL_CONFIG.replace("rocket", "zebra")
    (tmp_path / "interface.xml").write_text(interface)
    code, out, _ = ris("connect", "--title", "Zoo", "--config", "interface.xml", "--json")
    assert code == 0
    assert studio.projects[0]["label_config"] == interface
    connection = json.loads(out)
    fields = {"project": 1, "made": True, "registered": True, "moved_from": None}
    assert {name: connection[name] for name in fields} == fields
    (tmp_path / "interface.xml").write_text(LABEL_CONFIG)
    _, out, _ = ris("connect", "--title", "Zoo", "--config", "interface.xml")
    assert "its labelling interface stays as it is" in out
    assert studio.projects[0]["label_config"] == interface


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("connect",), 2, "Name one project"),
        (("connect", "--project", "1", "--title", "Zoo"), 2, "Name one project"),
        (("connect", "--project", "1", "--config", "x.xml"), 2, "name it with --title"),
        (("connect", "--title", "Zoo", "--config", "none.xml"), 2, "can't be read as a labelling interface"),
        (("connect", "--title", "Zoo", "--config", "bad.xml"), 1, "has no Image tag"),
        (("prompts", "--project", "1", "--set", "the cat"), 2, "isn't LABEL=SENTENCE"),
        (("prompts", "--project", "1", "--alias", "=the cat"), 2, "isn't LABEL=SENTENCE"),
        (("prompts", "--project", "1", "--file", "bad.xml"), 1, "neither .json nor .csv"),
        (("prompts", "--project", "1", "--set", "cat=" + "x" * 501), 1, "write 1 to 500"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_one_sentence(
    ris: Run, studio: Studio, tmp_path: Path, home: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "bad.xml").write_text("<View/>")
    ended, out, err = ris(*arguments)
    assert (ended, out) == (code, "")
    assert err.startswith("ris: ") and sentence in err
    assert err.count("\n") == 1
    assert studio.projects == []
    assert not load_sheet(home, 1).entries


def test_prompts_are_set_shown_and_taken_away(ris: Run, home: Path) -> None:
    _, out, _ = ris("prompts", "--project", "7")
    assert out == "Project 7 has no prompt sheet.\n"
    code, out, _ = ris(
        *("prompts", "--project", "7", "--set", "dog=the dog | a [big] puppy", "--set", "cat=a cat"),
        *("--negative", "dog=the toy", "--alias", "dog=hound"),
    )
    assert code == 0
    for word in ("the dog", "a [big] puppy", "the toy", "hound", "another version"):
        assert word in out
    _, out, _ = ris("prompts", "--project", "7", "--json")
    expected = {
        "dog": {"prompts": ["the dog", "a [big] puppy"], "negatives": ["the toy"], "aliases": ["hound"]},
        "cat": {"prompts": ["a cat"], "negatives": [], "aliases": []},
    }
    assert json.loads(out) == expected
    _, out, _ = ris("prompts", "--project", "7", "--set", "cat=", "--negative", "dog=")
    assert json.loads(json.dumps(load_sheet(home, 7).as_json())) == {"dog": {**expected["dog"], "negatives": []}}
    _, out, _ = ris("prompts", "--project", "7", "--set", "dog=the dog|a [big] puppy")
    assert "another version" not in out
    ris("prompts", "--project", "7", "--clear", "--set", "cat=a cat")
    assert list(load_sheet(home, 7).entries) == ["cat"]


def test_a_file_replaces_the_sheet(ris: Run, home: Path, tmp_path: Path) -> None:
    ris("prompts", "--project", "7", "--set", "cup=a cup")
    (tmp_path / "sheet.csv").write_text("label,prompt,negative\ndog,the dog | a puppy,the toy\n")
    code, out, _ = ris("prompts", "--project", "7", "--file", "sheet.csv", "--set", "cat=a cat", "--json")
    assert code == 0
    assert list(json.loads(out)) == ["dog", "cat"]
    (tmp_path / "again.json").write_text(out)
    ris("prompts", "--project", "8", "--file", "again.json")
    assert load_sheet(home, 8) == load_sheet(home, 7)


def test_a_label_that_the_project_has_not_is_pointed_out(ris: Run, home: Path) -> None:
    interface_file(home, 7).parent.mkdir()
    interface_file(home, 7).write_text(LABEL_CONFIG)
    for option in ("--set", "--negative", "--alias"):
        code, out, err = ris("prompts", "--project", "7", "--set", "cat=a", option, "persn=a man")
        assert (code, out) == (2, "")
        assert err == 'ris: The labelling interface has no label "persn". Did you mean "person"?\n'
    assert load_sheet(home, 7).entries == {}
    file = home / "sheet.json"
    file.write_text('{"persn": {"prompts": ["a man"]}, "zebra": {"prompts": ["x"]}, "cat": {"prompts": ["a"]}}')
    code, out, err = ris("prompts", "--project", "7", "--file", str(file), "--json")
    assert code == 0
    assert ris("prompts", "--project", "7", "--set", "zebra=")[0] == 0
    assert list(json.loads(out)) == ["persn", "zebra", "cat"]
    assert 'no label "persn". Did you mean "person"?' in " ".join(err.split())
    assert 'no label "zebra". It has person, cat,' in " ".join(err.split())
    assert '"cat"' not in err
