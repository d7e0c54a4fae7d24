"""`ris up`: what it checks before it starts anything, and the processes that it would start."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.errors import StartError
from backend.local import up
from backend.local.services import BACKEND, LABEL_STUDIO, TRAINER, VALKEY, WORKER, commands
from backend.local.supervisor import Service
from backend.settings import Settings

Make = Callable[..., Settings]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def at(make_settings: Make, redis: int, studio: int, backend: int) -> Settings:
    return make_settings(
        redis_url=f"redis://:hidden@127.0.0.1:{redis}/0",
        label_studio_url=f"http://127.0.0.1:{studio}",
        label_studio_password="login-pass",
        port=backend,
    )


@pytest.mark.parametrize(
    ("place", "name", "change"),
    [
        (0, VALKEY, "the port in RIS_REDIS_URL to {}"),
        (1, LABEL_STUDIO, "RIS_LABEL_STUDIO_URL=http://127.0.0.1:{}"),
        (2, BACKEND, "RIS_PORT={}"),
    ],
)
def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    place: int, name: str, change: str, taken: int, free: int, make_settings: Make
) -> None:
    ports = [free, free, free]
    ports[place] = taken
    with pytest.raises(StartError) as failure:
        up.check_ports(at(make_settings, *ports))
    (sentence,) = str(failure.value).splitlines()
    assert sentence.startswith(f"Port {taken}, which {name} needs, is taken by another program")
    assert change.format(taken + 1) in sentence
    assert "ris.env" in sentence
    assert "hidden" not in sentence


def test_all_taken_ports_are_named_at_once(taken: int, make_settings: Make) -> None:
    with pytest.raises(StartError) as failure:
        up.check_ports(at(make_settings, taken, taken, taken))
    assert len(str(failure.value).splitlines()) == 3


def test_a_port_taken_on_all_addresses_is_taken(free: int, make_settings: Make) -> None:
    with socket.create_server(("0.0.0.0", free)), pytest.raises(StartError):
        up.check_ports(at(make_settings, free, free, free))
    up.check_ports(at(make_settings, free, free, free))


@pytest.mark.parametrize(
    "knobs",
    [{"label_studio_url": "https://labels.example.com"}, {"redis_url": "redis://:hidden@redis.example.com/0"}],
    ids=lambda knobs: next(iter(knobs)),
)
def test_a_server_elsewhere_is_not_started_here(knobs: dict[str, str], make_settings: Make) -> None:
    with pytest.raises(StartError, match=r"RIS_\w+ names the host \w+\.example\.com") as failure:
        up.check_ports(make_settings(**{"redis_url": "redis://:x@127.0.0.1:1/0", **knobs}))
    assert "hidden" not in str(failure.value)


@pytest.fixture
def services(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    for name in ("PASSWORD", "HOST", "PORT", "DEBUG", "DATABASE_NAME"):
        monkeypatch.setenv(name, "of-the-user")
    settings = at(make_settings, 6390, 8080, 9090)
    services = up.local_services(settings, Path("/opt/label-studio/bin/label-studio"))
    return {service.name: service for service in services}


def test_the_processes_run_the_commands_of_the_containers(services: dict[str, Service]) -> None:
    expected = commands("127.0.0.1", 8080)
    assert list(services) == list(expected)
    for name, service in services.items():
        program, *arguments = service.command
        assert arguments == list(expected[name][1:])
        assert Path(program).name == expected[name][0]
        assert Path(program).is_absolute()


def test_label_studio_gets_nothing_of_the_users_environment(services: dict[str, Service]) -> None:
    environment = services[LABEL_STUDIO].environment
    ours = {name for name in environment if name.startswith("LABEL_STUDIO_")}
    assert set(environment) - ours <= {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONUNBUFFERED", "GIT_DIR"}
    assert "of-the-user" not in environment.values()
    assert environment["LABEL_STUDIO_PASSWORD"] == "login-pass"


def test_no_secret_is_on_a_command_line(services: dict[str, Service]) -> None:
    line = " ".join(argument for service in services.values() for argument in service.command)
    for secret in ("hidden", "login-pass", "backend-pass", "hook-secret", "studio-token"):
        assert secret not in line


def test_our_processes_find_the_home_folder_from_anywhere(services: dict[str, Service]) -> None:
    for name in (VALKEY, BACKEND, WORKER, TRAINER):
        assert Path(services[name].environment["RIS_HOME"]).is_absolute()


def test_a_missing_label_studio_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"Label Studio isn't installed.*make up"):
        up.find_label_studio()
    program = tmp_path / "label-studio"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert up.find_label_studio() == program


def test_signals_stop_it_like_ctrl_c(tmp_path: Path) -> None:
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        up.listen_to_signals()
        for number in previous:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
