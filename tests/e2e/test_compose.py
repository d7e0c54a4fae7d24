"""The stack of docker-compose.yml, service by service as the file says, with PostgreSQL: it answers, and it learns.

With -s the most memory that each service held is printed at the end.
"""

from __future__ import annotations

import shutil
import stat
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from compose_stack import PROGRAMS, Stack, postgres_programs, public_folder, read_compose
from dotenv import dotenv_values
from editor import call
from redis import Redis
from redis.exceptions import AuthenticationError

from backend.home import models_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region, read_annotation
from backend.projects import samples
from backend.projects.connect import LABEL_CONFIG, PROJECT
from backend.registry import Registry
from ris_core.masks import iou

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
CONFIG = parse(LABEL_CONFIG)
NAMESPACES = ("unshare", "--uts", "--pid", "--fork", "--mount-proc")
OTHER_HOST = (*NAMESPACES, "sh", "-c", 'hostname second && exec "$@"', "sh")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    postgres = postgres_programs()
    if postgres is None:
        pytest.skip("PostgreSQL isn't installed: on Debian, apt install postgresql.")
    folder = public_folder()
    stack = Stack(postgres, folder, read_compose(folder))
    try:
        stack.up()
        threading.Thread(target=stack.watch_memory, daemon=True).start()
        yield stack
    finally:
        stack.down()
        shutil.rmtree(folder)
        print("\nmost memory, MB:", stack.memory)


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[LabelStudio]:
    token = dotenv_values(stack.volume("ris") / "ris.env")["RIS_LABEL_STUDIO_TOKEN"]
    assert token
    with LabelStudio(f"http://127.0.0.1:{stack.ports['label-studio']}", token) as client:
        yield client


@pytest.fixture(scope="module")
def project(client: LabelStudio) -> int:
    return next(int(row["id"]) for row in client.projects() if row["title"] == PROJECT)


def photo(client: LabelStudio, project: int, name: str) -> int:
    return next(int(row["id"]) for row in client.tasks(project) if row["data"]["image"].endswith(f"-{name}"))


def test_secrets_are_their_owners_alone_and_in_no_environment(stack: Stack) -> None:
    files = {file.name: file for file in stack.volume("secrets").iterdir()}
    assert set(files) == {"label_studio_password", "password", "webhook_secret", "redis_url", "postgres_password"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.values()} == {0o600}
    for service in stack.config["services"].values():
        said = " ".join(map(str, [*(service["environment"] or {}).values(), *(service["command"] or ())]))
        for file in files.values():
            assert file.read_text() not in said
            assert file.read_text() not in stack.log("connect")


def test_label_studio_keeps_everything_in_postgresql(stack: Stack, client: LabelStudio) -> None:
    rows = stack.run(
        "label-studio",
        "python",
        "-c",
        "import psycopg, os; c = psycopg.connect(host=os.environ['POSTGRE_HOST'], port=os.environ['POSTGRE_PORT'], "
        "user=os.environ['POSTGRE_USER'], dbname=os.environ['POSTGRE_NAME'], "
        "password=open(os.environ['POSTGRE_PASSWORD_FILE']).read())\n"
        "print(c.execute('select count(*) from task').fetchone()[0])",
    )
    assert int(rows.stdout) >= 7, rows.stderr
    # As the documents say that it is backed up; there by the server's socket, which asks for no password.
    dumped = stack.run(
        "postgres",
        "sh",
        "-c",
        "PGPASSWORD=$(cat $POSTGRES_PASSWORD_FILE) pg_dump --host 127.0.0.1 --username label_studio --format custom "
        "label_studio | pg_restore --list",
    )
    assert "TABLE DATA public task label_studio" in dumped.stdout, dumped.stderr
    assert not list(stack.volume("label-studio").glob("*.sqlite3"))


def test_everybody_else_is_kept_out(stack: Stack) -> None:
    with pytest.raises(AuthenticationError):
        Redis(port=stack.ports["valkey"]).ping()
    for path, payload in (("predict", {"tasks": []}), ("setup", {}), ("webhook", {"action": "ANNOTATION_CREATED"})):
        answer = httpx.post(f"http://127.0.0.1:{stack.ports['backend']}/{path}", json=payload, trust_env=False)
        assert answer.status_code == 401


def test_no_other_private_address_is_opened(stack: Stack, client: LabelStudio, project: int) -> None:
    with pytest.raises(Exception, match="reserved network address"):
        client.create_ml_backend(project, "http://10.0.0.1:9090", "another", "ris", "word")


def test_a_prompt_is_answered(client: LabelStudio, project: int) -> None:
    typed = {
        "from_name": "prompt",
        "to_name": "image",
        "type": "textarea",
        "origin": "manual",
        "value": {"text": ["the cat"]},
    }
    (backend,) = client.ml_backends(project)
    body = {"task": photo(client, project, "chelsea.png"), "context": {"result": [{"id": "typed", **typed}]}}
    answer = call(client, "POST", f"/api/ml/{backend['id']}/interactive-annotating", json=body)
    assert "errors" not in answer, answer
    (shown,) = read_annotation(answer["data"]["result"], CONFIG).masks
    (drawn,) = [mask for mask in samples.corrections() if mask.photo == "chelsea.png" and mask.label == "cat"][:1]
    assert iou(shown.mask, drawn.mask()) > 0.6


def test_enough_corrections_are_learnt_from(stack: Stack, client: LabelStudio, project: int) -> None:
    by_photo = defaultdict(list)
    for mask in samples.corrections():
        by_photo[mask.photo].append(mask)
    for name, masks in by_photo.items():
        height, width = masks[0].mask().shape
        result = [prompt_region(CONFIG, (height, width), *(mask.prompts[0] for mask in masks))]
        for mask in masks:
            label = CONFIG.label(mask.label)
            assert label
            result += mask_regions(CONFIG, label, mask.mask(), 1.0, mask.prompts[0])
        client.create_annotation(photo(client, project, name), result)
    registry, deadline = Registry(models_folder(stack.volume("ris"))), time.monotonic() + 600
    while not (own := [version for version in registry.versions(project) if version.card["origin"] == "fine-tuned"]):
        assert time.monotonic() < deadline, stack.log("trainer") + stack.log("backend")
        time.sleep(1)
    card = own[0].card
    assert card["decision"] in ("promoted", "kept")
    done = stack.run("worker", "ris", "versions", "--project", str(project))
    assert own[0].name in done.stdout, done.stderr
    assert all(stack.is_healthy(service) for service in ("backend", "worker", "trainer", "valkey", "postgres"))


def test_a_worker_on_another_host_works_and_its_death_costs_no_task(
    stack: Stack, client: LabelStudio, tmp_path: Path
) -> None:
    """Another host is a name, a numbering of processes and a path of its own; the home folder and Valkey are shared."""
    if subprocess.run([*OTHER_HOST, "true"], capture_output=True, check=False).returncode:
        pytest.skip("Namespaces can't be made here.")
    project = int(client.create_project("Two hosts", LABEL_CONFIG)["id"])
    connected = stack.run("worker", "ris", "connect", "--project", str(project))
    assert connected.returncode == 0, connected.stderr
    photos = dict(samples.photos())
    tasks = [client.upload(project, f"cat{number}.png", photos["chelsea.png"])[0] for number in range(48)]
    (tmp_path / "shared").symlink_to(stack.volume("ris"))
    environment = {**stack.environment("worker"), "RIS_HOME": str(tmp_path / "shared")}
    command = [*OTHER_HOST, str(PROGRAMS["ris"] / "ris"), "worker", "--only", "batches"]
    stack.stop("worker")
    with (tmp_path / "second.log").open("w") as output:
        second = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        prompts = ("--prompt", "the cat", "--prompt", "the nose", "--prompt", "an eye")
        asked = stack.run("trainer", "ris", "prelabel", "--project", str(project), *prompts, "--detach")
        assert asked.returncode == 0, asked.stderr
        until(lambda: predicted(client, project) > 0)
    finally:
        # The first process of its numbering: all others die with it.
        for child in psutil.Process(second.pid).children():
            child.kill()
        second.wait(20)
    left, started = len(tasks) - predicted(client, project), time.monotonic()
    assert left > 0
    stack.start("worker")
    until(lambda: predicted(client, project) == len(tasks))
    print(f"\n{left} tasks of a host that died were done by another after {time.monotonic() - started:.0f} s")
    # What was sent by the one that died may be there twice for a moment, which the batch's end looks to.
    until(lambda: [len(task["predictions"]) for task in client.tasks(project)] == [1] * len(tasks))


def predicted(client: LabelStudio, project: int) -> int:
    return sum(bool(task["predictions"]) for task in client.tasks(project))


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_all_of_it_stops_and_starts_again_with_what_it_had(stack: Stack, client: LabelStudio, project: int) -> None:
    secrets = {file.name: file.read_text() for file in stack.volume("secrets").iterdir()}
    before = len(list(client.tasks(project)))
    codes = stack.down()
    assert set(codes.values()) <= {0, -15, 143}, codes
    stack.up()
    assert {file.name: file.read_text() for file in stack.volume("secrets").iterdir()} == secrets
    assert len(list(client.tasks(project))) == before
    assert [row["title"] for row in client.projects()].count(PROJECT) == 1
    test_a_prompt_is_answered(client, project)
