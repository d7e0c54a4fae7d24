"""`ris up` and its kin as a terminal sees them: what is shown, the exit code, and no traceback."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from backend.cli.local import StudioDisplay
from backend.errors import StartError
from backend.local import demo, up
from backend.local.demo import ComparedPrompt, DemoResult
from backend.local.up import RunningStudio
from backend.queue.names import KINDS


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def display() -> StudioDisplay:
    return StudioDisplay(Console(file=io.StringIO(), width=200))


def shown(display: StudioDisplay) -> str:
    assert isinstance(display.console.file, io.StringIO)
    return display.console.file.getvalue()


def test_a_start_that_fails_says_one_sentence_and_no_traceback(tmp_path: Path, taken: int) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", "up"],
        env={**clean, "RIS_HOME": str(tmp_path / "home"), "RIS_PORT": str(taken)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"Port {taken}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "home" / "ris.env").exists()


def test_a_lost_reader_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rich.console import Console; from backend.cli.local import StudioDisplay\n"
        "sys.stdin.read(); StudioDisplay(Console()).say('Stopping ...'); Path(sys.argv[1]).touch()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "stopped")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.close()
    assert (tmp_path / "stopped").exists()


def test_how_a_run_ends_is_said_and_is_the_exit_code(display: StudioDisplay) -> None:
    def fail() -> None:
        raise StartError("The log says: [red] herring")

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert [display.attend(run) for run in (fail, interrupt, list)] == [1, 0, 0]
    assert shown(display) == "The log says: [red] herring\nStopped. The next start goes on from here.\n"


def test_services_are_named_as_they_are_ready_and_then_how_to_use_them(display: StudioDisplay, tmp_path: Path) -> None:
    with display.starting(["valkey", "backend"]) as on_ready:
        on_ready("valkey", 0.6)
    place, console = "http://here/projects/1/data", "http://here:9090/console/"
    display.running(RunningStudio(place, "me@here", "login-pass", tmp_path, console, ("ris", "console-pass")))
    assert "valkey is ready after 1 s." in shown(display)
    for text in (place, "me@here", f"{console}   ris", str(tmp_path / "logs"), "Ctrl-C"):
        assert text in shown(display)


RESULT = DemoResult(
    project=3,
    decision="promoted",
    reason="It is better.",
    min_validation=3,
    usual_min_validation=20,
    before="lda-11111111",
    after="lda-22222222",
    prompts=[
        ComparedPrompt("cat.png", "the cat", False, 0.5, 0.75),
        ComparedPrompt("cat.png", "the ear", False, 0.25, 0.5),
        ComparedPrompt("cup.png", "the cup", True, 0.5, 0.625),
    ],
    masks=3,
    folder=Path("exports/demo-3"),
    url="http://here/projects/3/data",
)


@pytest.fixture
def ris(run_ris, monkeypatch: pytest.MonkeyPatch, make_settings):
    """`ris` on a studio that runs already, in which the demo needs no time."""

    def run(settings, say, on_progress, teacher: str | None) -> DemoResult:
        say("Project 3: 2 photos, 3 prompts.")
        on_progress("learning", 0.5)
        return RESULT

    monkeypatch.setattr(up, "during", lambda home, work, display: work(make_settings()))
    monkeypatch.setattr(demo, "run", run)
    return run_ris


def test_demo_shows_its_steps_and_what_came_of_them(ris) -> None:
    code, output, errors = ris("demo")
    assert (code, errors) == (0, "")
    assert output.startswith("Project 3: 2 photos, 3 prompts.\nPromoted: It is better.\n")
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    assert ["cat.png", "the cat", "0.50", "0.75"] in lines
    assert ["mean, learnt from", "", "0.375", "0.625"] in lines
    assert ["mean, held out", "", "0.500", "0.625"] in lines
    assert ["model_version", "", "lda-11111111", "lda-22222222"] in lines
    assert "a project needs 20" in output
    assert "3 masks in exports/demo-3/instances.json, each equal to its annotation's bit for bit." in output


def test_demo_json(ris) -> None:
    code, output, errors = ris("demo", "--json")
    assert code == 0
    result = json.loads(output)
    assert (result["project"], result["decision"], result["masks"]) == (3, "promoted", 3)
    assert (result["before"], result["after"]) == ("lda-11111111", "lda-22222222")
    assert result["prompts"][2] == {
        "photo": "cup.png",
        "prompt": "the cup",
        "held_out": True,
        "before": 0.5,
        "after": 0.625,
    }
    assert "Project 3: 2 photos" in errors


def test_a_worker_may_serve_one_kind_of_jobs(run_ris) -> None:
    code, _, errors = run_ris("worker", "--only", "typing")
    assert code == 2
    assert all(repr(kind) in errors for kind in KINDS)
