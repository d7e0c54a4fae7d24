"""docker-compose.yml as plain processes: each service's own command and environment, in the file's order.

What a container engine does is done here: volumes are folders, names of services are this machine, and ports are free
ones. All else is as Compose itself reads the file: commands, environments, the images' own environments and entry
points, health checks, dependencies, signals.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from backend.local.services import label_studio_environment

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
PORTS = {"postgres": 5432, "valkey": 6379, "label-studio": 8080, "backend": 9090}
# Beside the image's own programs.
SYSTEM_PATH = "/usr/bin:/bin"
PROGRAMS = {"ris": Path(sys.executable).parent, "label-studio": ROOT / ".venv-label-studio" / "bin"}
START_SECONDS = 420

Config = dict[str, Any]


def read_compose(folder: Path, **variables: str) -> Config:
    """The file as Compose reads it without a .env, with `variables` in the environment."""
    import compose

    program = Path(compose.__file__).with_name("docker-compose")
    command = [str(program), "--project-directory", str(ROOT), "--env-file", "/dev/null", "config", "--format", "json"]
    environment = {"PATH": SYSTEM_PATH, "HOME": str(folder), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def image_environment(target: str) -> dict[str, str]:
    """What ENV says in a target of the Dockerfile, and in those that it is made from."""
    stages = re.findall(r"^FROM (\S+) AS (\S+)\n((?:(?!FROM ).*\n)*)", (ROOT / "Dockerfile").read_text(), flags=re.M)
    base, text = {name: (base, text) for base, name, text in stages}[target]
    inherited = image_environment(base) if base in {name for _, name, _ in stages} else {}
    return inherited | dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, flags=re.M))))


def free_port() -> int:
    with closing(socket.create_server((LOOPBACK, 0))) as server:
        return int(server.getsockname()[1])


@dataclass
class Stack:
    """The services of a file, below `folder`, which other users may enter. postgres: the folder of its programs."""

    postgres: Path
    folder: Path
    config: Config
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in PORTS})
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def up(self) -> None:
        """Start each service once those that it depends on are as it asks."""
        for service in self._in_order():
            for other, condition in self._needs(service).items():
                self._wait(other, condition)
            self.start(service)
        for service in self.config["services"]:
            is_watched = "healthcheck" in self.config["services"][service]
            self._wait(service, "service_healthy" if is_watched else "service_completed_successfully")

    def down(self) -> dict[str, int]:
        """Stop what runs, the last started first -> the exit codes."""
        return {service: self.stop(service) for service in reversed(list(self.processes))}

    def stop(self, service: str) -> int:
        """Stop one service by its signal -> its exit code."""
        process = self.processes.pop(service)
        if process.poll() is None:
            process.send_signal(signal.Signals[self.config["services"][service].get("stop_signal", "SIGTERM")])
        return process.wait(60)

    def run(self, service: str, *command: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """As `docker compose exec SERVICE COMMAND`."""
        words, environment = self._mapped(service, list(command))
        return subprocess.run(
            words, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False
        )

    def environment(self, service: str) -> dict[str, str]:
        return self._mapped(service, [])[1]

    def watch_memory(self) -> None:
        """Keep in `memory` the most that each service holds, in MB, for as long as the stack is there."""
        while self.folder.exists():
            for service, process in list(self.processes.items()):
                with suppress(psutil.Error):
                    parent = psutil.Process(process.pid)
                    # Pages that several processes of a service share count once.
                    held = sum(child.memory_full_info().pss for child in (parent, *parent.children(recursive=True)))
                    self.memory[service] = max(self.memory.get(service, 0), held // 1_000_000)
            time.sleep(0.5)

    def _in_order(self) -> Iterator[str]:
        done: set[str] = set()
        while len(done) < len(self.config["services"]):
            ready = [name for name in self.config["services"] if name not in done and done >= set(self._needs(name))]
            assert ready, "services depend on each other in a circle"
            yield ready[0]
            done.add(ready[0])

    def _needs(self, service: str) -> dict[str, str]:
        needs = self.config["services"][service].get("depends_on", {})
        return {name: need["condition"] for name, need in needs.items() if name in self.config["services"]}

    def _wait(self, service: str, condition: str) -> None:
        process, deadline = self.processes[service], time.monotonic() + START_SECONDS
        if condition == "service_completed_successfully":
            assert process.wait(START_SECONDS) == 0, self.log(service)
            return
        while not self.is_healthy(service):
            assert process.poll() is None, f"{service} ended:\n{self.log(service)}"
            assert time.monotonic() < deadline, f"{service} isn't healthy:\n{self.log(service)}"
            time.sleep(0.3)

    def is_healthy(self, service: str) -> bool:
        """Whether its health check says so."""
        kind, *command = self.config["services"][service]["healthcheck"]["test"]
        assert kind == "CMD"
        if command[-2:] == ["worker", "1"]:
            # The first process of a container has the number 1.
            command[-1] = str(self.processes[service].pid)
        return self.run(service, *command).returncode == 0

    def start(self, service: str) -> None:
        """Start one service."""
        spec = self.config["services"][service]
        for volume in spec["volumes"]:
            self.volume(volume["source"]).mkdir(parents=True, exist_ok=True)
        words, environment = self._mapped(service, [*(spec["entrypoint"] or ()), *(spec["command"] or ())])
        user = None
        if spec["image"].startswith("postgres:"):
            user = make_database(self.postgres, self.folder, environment)
        elif target(spec) == "label-studio":
            # The image's entry point.
            words = ["/bin/sh", str(ROOT / "deploy" / "with-secrets"), *words]
        with (self.folder / f"{service}.log").open("ab") as output:
            self.processes[service] = subprocess.Popen(
                words, env=environment, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, user=user
            )

    def _mapped(self, service: str, command: list[str]) -> tuple[list[str], dict[str, str]]:
        """A command and the environment of its service, with paths, hosts and ports of this machine."""
        spec = self.config["services"][service]
        environment = {} if spec["image"].startswith("postgres:") else image_environment(target(spec))
        environment |= spec["environment"]
        paths = {volume["target"]: str(self.volume(volume["source"])) for volume in spec["volumes"]}
        paths |= {"/tmp": str(self.folder / "tmp")}
        (self.folder / "tmp").mkdir(exist_ok=True)
        mapped = {name: self._map(value, paths) for name, value in environment.items()}
        words = [self._map(word, paths) for word in command]
        if spec["image"].startswith("postgres:"):
            programs, mapped["PGPORT"] = self.postgres, str(self.ports["postgres"])
        else:
            programs = PROGRAMS[target(spec)]
        if target(spec) == "label-studio":
            mapped |= {"POSTGRE_HOST": LOOPBACK, "POSTGRE_PORT": str(self.ports["postgres"])}
            # The backend's address is another, and so is the opening in the list.
            address = self.config["services"]["backend"]["networks"]["labelling"]["ipv4_address"]
            opened = label_studio_environment("", f"{address}/32"), label_studio_environment("", f"{LOOPBACK}/32")
            name = "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS"
            assert mapped[name] == opened[0][name]
            mapped[name] = opened[1][name]
            words = [str(self.ports["label-studio"]) if word == str(PORTS["label-studio"]) else word for word in words]
        if service == "backend":
            mapped["RIS_PORT"] = str(self.ports["backend"])
        if words and (programs / words[0]).exists():
            words[0] = str(programs / words[0])
        mapped["PATH"] = f"{programs}:{SYSTEM_PATH}"
        # An image has the packages installed; here they may be those of the checkout.
        mapped |= {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
        return words, mapped

    def _map(self, text: str, paths: Mapping[str, str]) -> str:
        for path, local in paths.items():
            if text == path or text.startswith(f"{path}/"):
                return local + text.removeprefix(path)
        for name, port in PORTS.items():
            text = re.sub(rf"(?<![\w.-])(?:{name}|127\.0\.0\.1):{port}\b", f"{LOOPBACK}:{self.ports[name]}", text)
        return LOOPBACK if text == "0.0.0.0" else text


def target(spec: Config) -> str:
    return str(spec["build"]["target"]) if "build" in spec else ""


def postgres_programs() -> Path | None:
    """Where the machine's PostgreSQL is; Debian keeps it off the PATH."""
    places = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which("postgres", path=os.pathsep.join(places))
    return Path(found).resolve().parent if found else None


def make_database(programs: Path, folder: Path, environment: dict[str, str]) -> int | None:
    """What the image's entry point does at its first start -> who runs the server, which refuses to be root."""
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    data, secret = Path(environment["PGDATA"]), folder / "pwfile"
    environment["LANG"] = "C.UTF-8"
    if (data / "PG_VERSION").exists():
        return user
    data.mkdir(mode=0o700)
    shutil.copy(environment["POSTGRES_PASSWORD_FILE"], secret)
    if user is not None:
        os.chown(data, user, -1)
        os.chown(secret, user, -1)
    make = [
        str(programs / "initdb"),
        f"--username={environment['POSTGRES_USER']}",
        f"--pwfile={secret}",
        "--auth-local=trust",
    ]
    options: dict[str, Any] = {"env": environment, "user": user, "capture_output": True}
    subprocess.run([*make, "--auth-host=scram-sha-256"], check=True, **options)
    secret.unlink()
    with (data / "postgresql.conf").open("a") as file:
        file.write("unix_socket_directories = ''\n")
    alone = [str(programs / "postgres"), "--single", "postgres"]
    statement = f"CREATE DATABASE {environment['POSTGRES_DB']}\n"
    subprocess.run(alone, input=statement, text=True, check=True, **options)
    return user


def public_folder() -> Path:
    """A temporary folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="ris-compose-"))
    folder.chmod(0o755)
    return folder
