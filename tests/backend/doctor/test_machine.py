"""Faults of this machine, planted one by one: each is found at its link, and its remedy named."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gateway import Gateway
from ports import free_port
from redis import Redis
from rq import Queue, SimpleWorker
from rq.suspension import suspend
from rq.utils import utcformat

from backend.doctor import machine
from backend.queue.names import KINDS, NAME, TRAINING
from ris_core import checkpoint_files

from .chain import Chain


@pytest.mark.parametrize("link", ["settings", "disk", "weights", "redis", "worker"])
def test_a_whole_link(chain: Chain, link: str) -> None:
    assert chain.expect(link, "ok").remedy == ""


def test_a_misspelt_setting(chain: Chain) -> None:
    chain.knobs["webhook_sekret"] = "x"
    finding = chain.expect("settings", "broken")
    assert finding.remedy == "Did you mean RIS_WEBHOOK_SECRET?"
    chain.expect("worker", "skipped")


def test_a_file_that_can_not_be_read(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    (chain.home / "ris.env").write_bytes(b"RIS_PASSWORD=\xff")
    monkeypatch.setattr(Chain, "write", lambda _: None)
    chain.expect("settings", "broken", str(chain.home / "ris.env"))


@pytest.mark.parametrize("secret", machine.SECRETS)
def test_a_missing_secret(chain: Chain, secret: str) -> None:
    del chain.knobs[secret]
    finding = chain.expect("settings", "warning")
    assert finding.what == f"Not set: RIS_{secret.upper()}."
    assert "ris.env" in finding.remedy


def test_a_file_of_secrets_for_all_to_read(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.write()
    (chain.home / "ris.env").chmod(0o644)
    monkeypatch.setattr(Chain, "write", lambda _: None)
    assert chain.expect("settings", "warning").remedy == f"chmod 600 {chain.home / 'ris.env'}"


def test_the_wrong_folder(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "elsewhere"))
    chain.expect("settings", "warning", remedy="set RIS_HOME")
    chain.expect("disk", "broken", remedy="set RIS_HOME")
    assert not (tmp_path / "elsewhere").exists()


def test_a_home_that_is_not_to_be_written(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder of the kernel's: nobody may write there, root included.
    monkeypatch.setenv("RIS_HOME", "/proc/self")
    chain.expect("disk", "broken", "can't be written", "RIS_HOME")


@pytest.mark.parametrize(("plenty", "least", "state"), [(1 << 60, 0, "warning"), (1 << 60, 1 << 60, "broken")])
def test_a_disk_that_runs_full(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, plenty: int, least: int, state: str
) -> None:
    monkeypatch.setattr(machine, "PLENTY", plenty)
    monkeypatch.setattr(machine, "LEAST", least)
    chain.expect("disk", state, remedy="images")


def test_nothing_is_left_on_the_disk(chain: Chain) -> None:
    chain.probe("disk")
    assert [path.name for path in chain.home.iterdir() if path.name.startswith(".doctor")] == []


def test_damaged_weights(chain: Chain, monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in weights.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[:-1] if file.suffix != ".json" else file.read_bytes())
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: damaged)
    chain.expect("weights", "broken", "isn't the file", "Fetch both again")


def test_valkey_is_down(chain: Chain) -> None:
    chain.knobs["redis_url"] = f"redis://:x@127.0.0.1:{free_port()}/0"
    chain.expect("redis", "broken", "nothing listens there", "RIS_REDIS_URL")
    assert chain.expect("worker", "skipped").what == "Needs redis."


@pytest.mark.parametrize("password", ["wrong", ""])
def test_the_password_of_valkey_is_wrong(chain: Chain, password: str) -> None:
    host = chain.knobs["redis_url"].rpartition("@")[2]
    chain.knobs["redis_url"] = f"redis://:{password}@{host}" if password else f"redis://{host}"
    finding = chain.expect("redis", "broken", "doesn't accept the password", "requirepass")
    assert "wrong" not in finding.what


def test_a_valkey_without_a_password(chain: Chain, lasting_redis: Redis) -> None:
    password = lasting_redis.config_get("requirepass")["requirepass"]
    lasting_redis.config_set("requirepass", "")
    try:
        chain.knobs["redis_url"] = f"redis://{chain.knobs['redis_url'].rpartition('@')[2]}"
        chain.expect("redis", "warning", remedy="requirepass")
    finally:
        lasting_redis.config_set("requirepass", password)


def test_a_valkey_that_forgets(chain: Chain, lasting_redis: Redis) -> None:
    lasting_redis.config_set("save", "")
    chain.expect("redis", "warning", remedy="appendonly yes")


def test_a_valkey_that_is_full(chain: Chain, lasting_redis: Redis) -> None:
    lasting_redis.config_set("maxmemory", "1")
    try:
        chain.expect("redis", "broken", "can't be written")
    finally:
        lasting_redis.config_set("maxmemory", "0")


def test_a_valkey_that_label_studio_uses_too(chain: Chain, lasting_redis: Redis) -> None:
    Queue("critical", connection=lasting_redis).enqueue("math.sqrt", 4)
    chain.expect("redis", "warning", remedy="RIS_REDIS_URL")


def test_nothing_is_left_in_valkey(chain: Chain, lasting_redis: Redis) -> None:
    chain.probe("redis")
    assert list(lasting_redis.scan_iter("ris:doctor:*")) == []


def test_no_worker(chain: Chain, worker: SimpleWorker, lasting_redis: Redis) -> None:
    worker.register_death()
    Queue(NAME, connection=lasting_redis).enqueue("math.sqrt", 4)
    chain.expect("worker", "broken", "No worker is registered; 1 job waits", "`ris worker`")


def test_a_worker_that_was_killed(chain: Chain, worker: SimpleWorker, lasting_redis: Redis) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    lasting_redis.hset(worker.key, "pid", ended.pid)
    chain.expect("worker", "broken", "heard of at")
    lasting_redis.hset(worker.key, "pid", os.getpid())
    chain.expect("worker", "ok")


def test_a_worker_that_has_fallen_silent(chain: Chain, worker: SimpleWorker, lasting_redis: Redis) -> None:
    silent = datetime.now(UTC) - timedelta(seconds=machine.SILENCE_SECONDS + 5)
    lasting_redis.hset(worker.key, mapping={"hostname": "elsewhere", "last_heartbeat": utcformat(silent)})
    chain.expect("worker", "broken")
    lasting_redis.hset(worker.key, "last_heartbeat", utcformat(datetime.now(UTC)))
    chain.expect("worker", "ok")


def test_a_worker_that_listens_elsewhere(chain: Chain, worker: SimpleWorker, lasting_redis: Redis) -> None:
    for queues, missing in (
        ("default", ["training", "batches"]),
        (TRAINING, ["batches"]),
        (NAME, ["training", "batches"]),
    ):
        lasting_redis.hset(worker.key, "queues", queues)
        finding = chain.expect("worker", "broken")
        assert finding.what.startswith(f"No worker does {' or '.join(missing)};")
        assert [kind for kind in KINDS if f"`ris worker --only {kind}`" in finding.remedy] == missing


def test_work_is_suspended(chain: Chain, lasting_redis: Redis) -> None:
    suspend(lasting_redis)
    chain.expect("worker", "broken", remedy="rq resume")


def test_no_store(chain: Chain) -> None:
    assert "on this machine alone" in chain.expect("store", "ok").what


def test_a_store(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    chain.knobs["store"] = str(tmp_path / "share")
    assert "of two writes at once refuses one" in chain.expect("store", "ok").what
    assert not list((tmp_path / "share").glob("[!.]*"))


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("reset", "Check the network"),
        ("403", "Check AWS_ACCESS_KEY_ID"),
        ("skew", "Set it, by NTP"),
        ("forget conditions", "Use a store that has them"),
    ],
)
def test_a_store_that_fails(chain: Chain, gateway: Gateway, address: str, fault: str, remedy: str) -> None:
    chain.knobs["store"] = address
    gateway.fault = fault
    assert chain.expect("store", "broken").remedy.startswith(remedy)


@pytest.mark.parametrize("address", ["/nowhere/at/all", "s3://", "ftp://x/y"])
def test_an_address_of_no_store(chain: Chain, address: str) -> None:
    chain.knobs["store"] = address
    assert chain.expect("store", "broken").remedy
