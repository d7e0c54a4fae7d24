"""Two homes as two hosts, one Valkey, one bucket on a real S3 server, real processes: A learns, B pre-labels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cast import Cast, playing, until
from checkpoints import random_checkpoint
from labelstudio.site import serve
from ports import free_port
from s3 import S3
from shelf import XML, Shelf, data
from squares import annotated_studio
from studio import PROJECT, TOKEN

from backend import services
from backend.batches.service import BatchService
from backend.batches.store import BatchSpec
from backend.learning import versions
from backend.queue.allow_list import sign_jobs
from backend.queue.queue import JobQueue, connect
from backend.settings import load
from backend.store.versions import SharedRegistry
from ris_core import checkpoint_files

HERE = Path(__file__).parent.parent
TASKS = 24


@pytest.fixture
def cast(
    tmp_path: Path, s3: S3, address: str, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> Iterator[Cast]:
    """The servers, a trainer with home a, a worker of batches with home b; this process is a third host."""
    weights, shelf = random_checkpoint(tmp_path / "weights"), free_port()
    with serve(annotated_studio()) as site:
        for name, value in {
            "RIS_HOME": str(tmp_path / "c"),
            "RIS_STORE": address,
            "RIS_REDIS_URL": f"redis://:secret-of-valkey@127.0.0.1:{free_port()}/0",
            "RIS_WEBHOOK_SECRET": "hook-secret",
            "RIS_LABEL_STUDIO_URL": site.url,
            "RIS_LABEL_STUDIO_TOKEN": TOKEN,
            "RIS_FINETUNE_MIN_VALIDATION": "4",
            "RIS_FINETUNE_SECONDS": "21600",
            "WEIGHTS": str(weights),
            "PASSES": "4",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join((str(HERE.parent.parent), str(HERE))),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(checkpoint_files, "shipped", lambda: weights)
        python, worker = sys.executable, str(HERE / "jobs" / "worker_under_test.py")
        of_b = [f"RIS_HOME={tmp_path / 'b'}", f"RIS_LABEL_STUDIO_URL=http://127.0.0.1:{shelf}"]
        commands = {
            "valkey": [python, "-m", "backend.local.valkey", "--bind", "127.0.0.1"],
            "shelf": [python, str(HERE / "shelf.py"), str(tmp_path / "shelf.db"), str(shelf)],
            "trainer": ["env", f"RIS_HOME={tmp_path / 'a'}", python, worker, "--stay", "--only", "training"],
            "worker": ["env", *of_b, python, worker, "--stay", "--only", "batches"],
        }
        with playing(commands, tmp_path / "log") as cast:
            yield cast


@pytest.mark.timeout(600)
def test_a_worker_fills_a_batch_with_what_another_hosts_trainer_learnt(cast: Cast, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(TASKS))
    cast.tend()
    connection = connect(os.environ["RIS_REDIS_URL"])
    sign_jobs(load())
    jobs = JobQueue(connection)
    until(cast, lambda: jobs.recent() == [])
    job = jobs.learn(PROJECT).job
    until(cast, lambda: jobs.describe(job)["status"] in ("finished", "failed"))
    ended = jobs.describe(job)
    assert ended["status"] == "finished", ended
    name = ended["result"]["version"]

    settings = load()
    registry = services.registry(settings)
    assert isinstance(registry, SharedRegistry)
    if registry.pointer(PROJECT).version != name:
        versions.promote(registry, PROJECT, name, None, instead_of=registry.base.name)
    batches = BatchService(connection, jobs)
    model = services.project_models(settings).of_interface(PROJECT, XML)
    assert model.version.name == name
    batch = batches.submit(BatchSpec(PROJECT, name, model.name), range(1, TASKS + 1)).id
    assert name in services.versions_in_use(settings, PROJECT)
    # Killed in between, it goes on.
    until(cast, lambda: batches.get(batch).handled > 0)
    cast.kill("worker")
    until(cast, lambda: batches.get(batch).state == "done")
    assert batches.get(batch).failed == 0
    assert shelf.counts(model.name) == [1] * TASKS
    assert (tmp_path / "b" / "models" / f"project-{PROJECT}" / "versions" / name).is_dir()
    # What the trainer went by is there for the next one, wherever that runs.
    assert registry.bucket.list(f"learning/{PROJECT}")
    assert ended["result"]["snapshot"] in {path.split("/")[2] for path in registry.bucket.list(f"snapshots/{PROJECT}")}
