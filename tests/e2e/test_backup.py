"""A studio is backed up while it runs, and what is restored elsewhere answers and exports as it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from editor import call
from running import Studio, free_ports, wait

from backend.home import project_env_file
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region, read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, connect_backend, connect_titled
from backend.settings import Settings, load
from ris_core.files import sha256

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
CONFIG = parse(LABEL_CONFIG)


@pytest.fixture(scope="module")
def project(studio: Studio) -> int:
    """A project that has learnt, whose last version is in production."""
    with LabelStudio(studio.url, studio.token) as client:
        project = connect_titled(client, "Backed up", LABEL_CONFIG, studio.settings).project
        knobs = "RIS_FINETUNE_MIN_NEW=100000\nRIS_FINETUNE_LEAST_NEW=100000\nRIS_FINETUNE_SECONDS=5\n"
        with project_env_file(studio.home, project).open("a") as file:
            file.write(f"\n{knobs}")
        for name, data in samples.photos():
            [task] = client.upload(project, name, data)
            masks = [mask for mask in samples.corrections() if mask.photo == name]
            height, width = masks[0].mask().shape
            result = [prompt_region(CONFIG, (height, width), *(mask.prompts[0] for mask in masks))]
            for mask in masks:
                result += mask_regions(CONFIG, CONFIG.label(mask.label), mask.mask(), 1.0, mask.prompts[0])
            client.create_annotation(task, result)
    done(studio, "finetune", "--project", str(project))
    listed = json.loads(done(studio, "versions", "--project", str(project), "--json"))
    done(studio, "promote", listed["versions"][-1]["name"], "--project", str(project))
    return project


@pytest.fixture(scope="module")
def restored(studio: Studio, project: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """What `ris restore` made of the back-up, in a studio of its own."""
    folder = tmp_path_factory.mktemp("restored")
    told = json.loads(done(studio, "backup", str(folder / "studio.tar"), "--secrets", "--json"))
    assert told["label_studio"]
    assert told["versions"] >= 1
    backend, label_studio, valkey = free_ports(3)
    own = {
        "RIS_HOME": str(folder / "home"),
        "RIS_PORT": str(backend),
        "RIS_LABEL_STUDIO_URL": f"http://127.0.0.1:{label_studio}",
        "RIS_REDIS_URL": f"redis://:another@127.0.0.1:{valkey}/0",
    }
    environment, program = {**os.environ, **own}, str(Path(sys.executable).with_name("ris"))
    subprocess.run([program, "restore", str(folder / "studio.tar")], env=environment, check=True)
    log = folder / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen([program, "up"], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait(process, log)
        yield Studio(folder / "home", settings_of(own), project, own)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, log.read_text()


def settings_of(own: dict[str, str]) -> Settings:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in own.items():
            patched.setenv(name, value)
        return load()


def done(studio: Studio, *arguments: str) -> str:
    outcome = studio.ris(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def exported(studio: Studio, project: int) -> dict[str, str]:
    """A new export's files and what is in them."""
    name = f"compared-{time.monotonic_ns()}"
    out = json.loads(done(studio, "export", "--project", str(project), "--name", name, "--no-report", "--json"))["out"]
    return {str(path.relative_to(out)): sha256(path) for path in Path(out).rglob("*") if path.is_file()}


def answers(studio: Studio, project: int) -> dict[str, tuple[str, bytes]]:
    """What the editor gets for "the cat" in each photo, and by which version."""
    said = {}
    with LabelStudio(studio.url, studio.token) as client:
        [backend] = client.ml_backends(project)
        typed = {"from_name": "prompt", "to_name": "image", "type": "textarea", "value": {"text": ["the cat"]}}
        for task in client.tasks(project):
            body = {"task": task["id"], "context": {"result": [{"id": "typed", **typed}]}}
            result = call(client, "POST", f"/api/ml/{backend['id']}/interactive-annotating", json=body)
            masks = read_annotation(result["data"]["result"], CONFIG).masks
            said[task["data"]["image"]] = result["data"]["model_version"], b"".join(m.mask.tobytes() for m in masks)
    return said


def test_the_restored_studio_answers_as_the_one_that_was_backed_up(
    studio: Studio, restored: Studio, project: int
) -> None:
    with LabelStudio(restored.url, restored.token) as client:
        # It listens elsewhere.
        connect_backend(client, project, restored.settings)
    command = ("versions", "--project", str(project), "--json")
    assert json.loads(done(restored, *command)) == json.loads(done(studio, *command))
    before = answers(studio, project)
    assert answers(restored, project) == before
    assert len(before) == 7
    assert any(mask for _, mask in before.values())


def test_its_exports_are_the_same_byte_for_byte(studio: Studio, restored: Studio, project: int) -> None:
    before = exported(studio, project)
    assert exported(restored, project) == before
    assert len(before) > 7
