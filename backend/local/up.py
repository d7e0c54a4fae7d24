"""`ris up`: Label Studio, Valkey, the backend and its two workers on this machine, connected, with one command.

services.py says what runs, supervisor.py keeps it running, projects/connect.py joins it together. Who shows it to a
person is told; nothing is printed here.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from backend.errors import AlreadyRunning, LabelStudioUnauthorized, StartError
from backend.home import env_file, label_studio_folder, logs_folder
from backend.local import readiness
from backend.local.secrets import locked, prepare, remember
from backend.local.services import BACKEND, LABEL_STUDIO, TRAINER, VALKEY, WORKER, commands, label_studio_environment
from backend.local.supervisor import Service, Supervisor
from backend.projects import connect, samples
from backend.settings import Settings, load

_LOOPBACK = "127.0.0.1"
_REDIS_PORT = 6379
_HTTP_PORT = 80

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunningStudio:
    """What a person needs to use a studio that runs.

    url: of the project that it is connected to. console, console_login: its address, and user name and password.
    """

    url: str
    email: str
    password: str
    home: Path
    console: str
    console_login: tuple[str, str]


class Display(Protocol):
    """Who shows a person how it goes. Nothing of it may raise: services have to be stopped even if nobody looks."""

    def say(self, text: str) -> None:
        """Show a sentence, or a few lines; it may quote a log."""

    def starting(self, names: Sequence[str]) -> AbstractContextManager[Callable[[str, float], None]]:
        """Show services as starting until called with a name and the seconds that its start took."""

    def running(self, studio: RunningStudio) -> None:
        """Show how to use it."""


def up(home: Path, display: Display) -> None:
    """Start everything in `home`, connect it, and keep it running until SIGINT, SIGTERM or SIGHUP.

    A second start goes on where the first stopped: nothing is made twice.

    Raises:
        KeyboardInterrupt: one of these signals came, and all is stopped.
        RisError: the services didn't start; all is stopped.
    """
    _begin(home)
    _studio(home, display, None)


def during(home: Path, work: Callable[[Settings], Result], display: Display) -> Result:
    """What `work` returns with the studio: the one that runs in `home`, else one that runs for as long as it takes.

    Raises as `up` and as `work`.
    """
    _begin(home)
    try:
        return _studio(home, display, work)
    except AlreadyRunning:
        return work(load())


def _begin(home: Path) -> None:
    os.environ["RIS_HOME"] = str(home.absolute())
    listen_to_signals()
    prepare(home)


def listen_to_signals() -> None:
    """Have SIGTERM and SIGHUP (a closed terminal) interrupt, as Ctrl-C does; what `nohup` ignores stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _studio(home: Path, display: Display, work: Callable[[Settings], Result] | None) -> Result:
    """Bring the services up, do `work`, or without any keep them running, and stop them again."""
    with locked(home):
        settings = load()
        check_ports(settings)
        services = local_services(settings, find_label_studio())
        if work is not None:
            # It may wait for a job.
            services = [replace(service, essential=True) for service in services]
        supervisor = Supervisor(logs_folder(home), display.say)
        try:
            _bring_up(home, settings, services, supervisor, display)
            if work is None:
                supervisor.watch()
            return work(load())
        finally:
            display.say("Stopping the workers, the backend, Label Studio and Valkey ...")
            supervisor.stop()


def _bring_up(
    home: Path, settings: Settings, services: Sequence[Service], supervisor: Supervisor, display: Display
) -> None:
    servers = [service for service in services if service.name in (VALKEY, LABEL_STUDIO)]
    ours = [service for service in services if service not in servers]
    # The backend and its workers need a token. From the second start on there is one, and all start at once.
    _start(supervisor, services if settings.label_studio_token else servers, display)
    token = _token(home, settings, display)
    if settings.label_studio_token is None or token != settings.secret("label_studio_token"):
        if settings.label_studio_token:
            supervisor.stop([service.name for service in ours])
        remember(home, {"RIS_LABEL_STUDIO_TOKEN": token})
        settings = load()
        _start(supervisor, ours, display)
    project = connect.connect(settings, samples.photos).project
    url = f"{settings.label_studio_url}/projects/{project}/data"
    password = settings.secret("label_studio_password")
    console = f"{connect.backend_url(settings)}/console/"
    login = settings.username, settings.secret("password")
    display.running(RunningStudio(url, settings.label_studio_email, password, home, console, login))


def _start(supervisor: Supervisor, services: Sequence[Service], display: Display) -> None:
    """Start services side by side and wait for all."""
    names = [service.name for service in services]
    with display.starting(names) as on_ready:
        for service in services:
            supervisor.start(service)
        supervisor.wait_ready(names, on_ready)


def _token(home: Path, settings: Settings, display: Display) -> str:
    try:
        return connect.sign_in(settings)
    except LabelStudioUnauthorized:
        _reset_password(settings)
        display.say(f"The password of {settings.label_studio_email} is again the one in {env_file(home)}.")
        return connect.sign_in(settings)


def _reset_password(settings: Settings) -> None:
    """Give the login the password of ris.env: the file was lost, while Label Studio's database was not."""
    command = [str(find_label_studio()), "reset_password", "--username", settings.label_studio_email]
    password = settings.secret("label_studio_password")
    done = subprocess.run(
        command,
        input=f"{password}\n",
        text=True,
        capture_output=True,
        env=_label_studio_process_environment(settings),
        # Without a terminal of its own it reads the password from its input, not from the user's keyboard.
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise StartError(
            f"Label Studio refuses the login {settings.label_studio_email}, and its password can't be reset: "
            f"{done.stderr.strip()[-300:]}"
        )


def local_services(settings: Settings, label_studio: Path) -> list[Service]:
    """The services as processes of this machine, in the order of start; `label_studio` is its program.

    Raises StartError if a setting names another machine.
    """
    redis_url = settings.secret("redis_url")
    lines = commands(_LOOPBACK, _local_port("RIS_LABEL_STUDIO_URL", settings.label_studio_url, _HTTP_PORT))
    ours = {**os.environ, "RIS_HOME": str(settings.home.absolute())}

    def own(name: str, ready: Callable[[int], bool], stop_seconds: float, start_seconds: float = 120) -> Service:
        command = _in(Path(sys.executable).parent, lines[name])
        # People can label and be answered while a worker is down.
        essential = name not in (WORKER, TRAINER)
        return Service(name, command, ours, ready, start_seconds, stop_seconds, essential)

    def is_registered(pid: int) -> bool:
        return readiness.worker_registered(redis_url, pid)

    label_studio_health, health = f"{settings.label_studio_url}/health", f"{connect.backend_url(settings)}/health"
    return [
        own(VALKEY, lambda _: readiness.valkey_answers(redis_url), stop_seconds=10, start_seconds=60),
        Service(
            LABEL_STUDIO,
            _in(label_studio.parent, lines[LABEL_STUDIO]),
            _label_studio_process_environment(settings),
            lambda _: readiness.http_answers(label_studio_health),
            # The first start migrates an empty database: half a minute, more on a slow disk.
            start_seconds=300,
        ),
        # Gunicorn gives requests that are under way 30 seconds.
        own(BACKEND, lambda _: readiness.http_answers(health), stop_seconds=35),
        # What an export gets to finish; one that takes longer is started again by the next worker.
        own(WORKER, is_registered, stop_seconds=20),
        # A training stops at its next step, and the next worker goes on from there.
        own(TRAINER, is_registered, stop_seconds=10),
    ]


def check_ports(settings: Settings) -> None:
    """Raise StartError, with a sentence for each port that another program has and the setting to change."""
    redis = _local_port("RIS_REDIS_URL", settings.secret("redis_url"), _REDIS_PORT)
    label_studio = _local_port("RIS_LABEL_STUDIO_URL", settings.label_studio_url, _HTTP_PORT)
    needs = (
        (VALKEY, redis, f"the port in RIS_REDIS_URL to {redis + 1}"),
        (LABEL_STUDIO, label_studio, f"RIS_LABEL_STUDIO_URL=http://{_LOOPBACK}:{label_studio + 1}"),
        (BACKEND, settings.port, f"RIS_PORT={settings.port + 1}"),
    )
    taken = [
        f"Port {port}, which {name} needs, is taken by another program: stop that one, or set {change} "
        f"in {env_file(settings.home)}."
        for name, port, change in needs
        if not _is_free(port)
    ]
    if taken:
        raise StartError("\n".join(taken))


def find_label_studio() -> Path:
    """Label Studio's program: in the environment that `make` makes beside ours, else on the PATH.

    Raises StartError if it is nowhere.
    """
    beside = Path(sys.prefix).with_name(".venv-label-studio") / "bin" / "label-studio"
    program = beside if beside.exists() else shutil.which("label-studio")
    if not program:
        raise StartError(
            f"Label Studio isn't installed: {beside} is missing and no label-studio is on the PATH. "
            "`make up` installs it."
        )
    return Path(program)


def _label_studio_process_environment(settings: Settings) -> dict[str, str]:
    # It would take PORT, HOST, DEBUG, PASSWORD and the like from the user, so it gets little of those.
    passed = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
    data = str(label_studio_folder(settings.home.absolute()))
    return {
        **{name: os.environ[name] for name in passed if name in os.environ},
        **label_studio_environment(data, f"{_LOOPBACK}/32"),
        "LABEL_STUDIO_USERNAME": settings.label_studio_email,
        "LABEL_STUDIO_PASSWORD": settings.secret("label_studio_password"),
        "PYTHONUNBUFFERED": "1",
        # It asks git for its version, and would be told that of the repository that it is installed in.
        "GIT_DIR": os.devnull,
    }


def _in(folder: Path, command: tuple[str, ...]) -> tuple[str, ...]:
    return (str(folder / command[0]), *command[1:])


def _local_port(name: str, url: str, default: int) -> int:
    parts = urlsplit(url)
    if parts.hostname not in (_LOOPBACK, "localhost"):
        raise StartError(
            f"{name} names the host {parts.hostname}, but `ris up` starts everything on this machine: "
            f"write {_LOOPBACK} there, or use docker-compose.yml."
        )
    return parts.port or default


def _is_free(port: int) -> bool:
    # It reuses addresses, as the servers do: a port whose last connection is only winding down counts as free.
    with suppress(OSError), socket.create_server((_LOOPBACK, port)):
        return True
    return False
