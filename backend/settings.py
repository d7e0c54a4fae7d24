"""Every knob of the service, read from the environment and from `ris.env`. Knows nothing of what uses them.

A knob `x` is the variable RIS_X. The environment wins over `<RIS_HOME>/ris.env`, that over the defaults. The knobs
by which a project learns and is pre-labelled may have other values in a file of that project's own. In place of a
secret's RIS_X there may be RIS_X_FILE, the path of a file that holds it, as containers get them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import Field, PositiveInt, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.home import DEFAULT_HOME, env_file, home_folder, project_env_file, restored_folder
from ris_core import checkpoint_files
from ris_core.errors import CheckpointError, RisError

PREFIX = "RIS_"

Strategy: TypeAlias = Literal["uncertainty", "disagreement", "diversity", "coverage", "random", "mixed"]
"""What can be labelled next, see `backend.active_learning.strategies`."""

_MIB = 1 << 20
# Threads that must stay free for /health, /setup and /webhook, which Label Studio gives one second.
_SPARE_THREADS = 3
_REDIS_SCHEMES = ("redis", "rediss", "unix")
# What a project's own file may set.
_OWN = ("finetune_", "prelabel_", "prompt_box", "split_by")


class SettingsError(RisError, code="bad_settings"):
    """A knob is missing, misspelt or out of range."""


def _knob(default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, **limits)


class Settings(BaseSettings):
    """The knobs, immutable. Secrets print as asterisks; `secret` reads them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = _knob(DEFAULT_HOME, "Folder of everything that is kept: models, snapshots, caches, ris.env.")
    host: str = _knob("127.0.0.1", "Address that the backend listens on.")
    port: int = _knob(9090, "Port that the backend listens on.", ge=1, le=65535)
    backend_url: str | None = _knob(None, "The backend, as Label Studio reaches it; unset: http://<host>:<port>.")
    threads: int = _knob(8, "Requests that are served at the same time.", ge=4, le=64)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _knob("INFO", "Least severity that is logged.")
    log_format: Literal["text", "json"] = _knob("text", "How the backend and the workers log: for people, or JSON.")

    label_studio_url: str = _knob("http://127.0.0.1:8080", "Label Studio, as the backend reaches it.")
    label_studio_token: SecretStr | None = _knob(None, "Label Studio's personal access token.")
    label_studio_email: str = _knob("admin@example.com", "Login that `ris up` makes in Label Studio.")
    label_studio_password: SecretStr | None = _knob(None, "Password of that login.")
    redis_url: SecretStr | None = _knob(None, "Valkey or Redis: redis://:password@host:port/0.")
    store: str | None = _knob(
        None, "Bucket that several hosts share: s3://, gs:// or az://BUCKET/PREFIX, or a folder; unset: none."
    )
    username: str = _knob("ris", "User name that Label Studio gives the backend.", min_length=1)
    password: SecretStr | None = _knob(None, "Password that Label Studio gives the backend.")
    webhook_secret: SecretStr | None = _knob(
        None, "Secret header of Label Studio's webhooks; jobs in the queue are signed by it."
    )

    ca_file: Path | None = _knob(None, "Certificates of authorities to trust besides the usual ones, in PEM.")
    proxy: SecretStr | None = _knob(None, "Proxy that leads to Label Studio: http://user:password@host:port.")
    no_proxy: Annotated[tuple[str, ...], NoDecode] = _knob((), "Hosts that are reached without it, by commas.")
    proxy_images: bool = _knob(False, "Whether images are fetched through it: it must refuse inside addresses itself.")

    image_hosts: Annotated[tuple[str, ...], NoDecode] = _knob(
        (), "Hosts on private addresses that images may be fetched from, separated by commas."
    )
    local_files_root: Path | None = _knob(None, "Folder that local files are read from; unset: none are.")
    max_image_bytes: PositiveInt = _knob(50 * _MIB, "Largest image file, in bytes.")
    max_image_pixels: PositiveInt = _knob(100_000_000, "Largest image, in pixels.")

    max_request_bytes: PositiveInt = _knob(32 * _MIB, "Largest request, in bytes.")
    max_tasks: PositiveInt = _knob(10_000, "Most tasks of one request.")
    batch_from: PositiveInt = _knob(16, "Tasks of one request that are too many to wait for: they become a batch.")
    max_prompt_length: PositiveInt = _knob(500, "Longest prompt, in characters.")
    max_prompts: PositiveInt = _knob(32, "Most prompts of one task.")
    max_waiting: int = _knob(4, "Predictions that may wait for the model; more are turned away.", ge=0)
    predict_seconds: float = _knob(90, "Time for one request; Label Studio itself gives up after 100.", gt=0)

    model: str | None = _knob(
        None, "What projects start at: a folder, or the name of a zero-shot segmenter; unset: the shipped model."
    )
    cached_versions: PositiveInt = _knob(2, "Model versions that are kept in memory.")
    cached_embeddings: PositiveInt = _knob(64, "Image embeddings that are kept in memory, at most.")
    cached_megabytes: PositiveInt = _knob(1024, "Megabytes of them that are kept, at most, in the model's memory.")

    prompt_box: str = _knob("", "TextArea where prompts are typed; unset: the one that is named prompt, else smart.")
    prelabel_labels: bool = _knob(True, "Whether a batch asks for each label by its name where nothing else is asked.")
    prelabel_remember: bool = _knob(True, "Whether the prompt typed last is tried on the next picture of its project.")
    prelabel_blind: float = _knob(
        0.1, "Share of the held-out tasks, a fifth of all, that people are shown without a prediction.", ge=0, le=1
    )
    prelabel_new: bool = _knob(False, "Whether new tasks are pre-labelled as they come in.")
    prelabel_refresh: bool = _knob(True, "Whether a new version predicts anew, and Label Studio orders tasks by that.")
    prelabel_score: Literal["confidence", Strategy] = _knob(
        "confidence", "What a batch's scores go by, the lowest to be labelled first; see backend/active_learning."
    )
    # Measured with the shipped model on 80 COCO photos asked for 12 labels each, the IoU of 305 masks: of 184 below 0.3
    # 147 are of nothing and two reach an IoU of 0.5; of 121 above it 55 and 46.
    prelabel_min_score: float = _knob(0.3, "Least score of a mask that a batch writes; 0 writes all.", ge=0, le=1)
    prelabel_objects: Literal["one", "each", "instances"] = _knob(
        "one", "One region for all that a prompt finds, for each part, or for each thing."
    )
    prelabel_tolerance: float = _knob(1.0, "How far polygons may run from a mask's outline, in pixels.", ge=0, le=100)
    prelabel_smallest: float = _knob(0.0005, "Least part that counts, as a share of the picture.", ge=0, lt=1)

    split_by: str = _knob("", "Field of task data, such as patient, whose tasks all go into one split; unset: none.")

    finetune_min_new: PositiveInt = _knob(10, "New corrections before the model learns from them.")
    finetune_minutes: int = _knob(0, "Minutes after which it learns from fewer; 0: never.", ge=0)
    finetune_least_new: PositiveInt = _knob(3, "New corrections that it takes even then.")
    finetune_min_validation: PositiveInt = _knob(20, "Held-out corrections before a version may be promoted.")
    finetune_seconds: PositiveInt = _knob(120, "Time that one fine-tuning may train.", le=21_600)
    finetune_photos: PositiveInt = _knob(8, "Photos of a batch in fine-tuning; fewer need less memory.", le=256)
    finetune_notice: bool = _knob(True, "Whether the project's instructions in Label Studio say how learning goes.")
    finetune_processes: PositiveInt | None = _knob(None, "Processes that train together; unset: one for each GPU.")
    finetune_memory: PositiveInt | None = _knob(None, "Memory that learning may hold, in MiB; unset: no limit.")

    @field_validator("image_hosts", "no_proxy", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("label_studio_url", "proxy")
    @classmethod
    def _http_url(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        url = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not url:
            return value
        if not url.startswith(("http://", "https://")):
            raise ValueError("should start with http:// or https://")
        if not _host_of(url):
            raise ValueError("isn't an address; special characters of a password are percent-encoded, as @ is %40")
        return value if isinstance(value, SecretStr) else url.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, secret: SecretStr | None) -> SecretStr | None:
        url = secret.get_secret_value() if secret else ""
        if not url:
            return secret
        scheme = url.partition("://")[0] if "://" in url else ""
        if "sentinel" in scheme:
            raise ValueError("names a sentinel, which isn't supported: write the server itself, redis://:PASSWORD@HOST")
        if scheme not in _REDIS_SCHEMES:
            raise ValueError("should start with redis://, rediss:// or unix://, as in redis://:PASSWORD@HOST:PORT/0")
        try:
            parts = urlsplit(url)
            # Of redis://:pa#ss@host, the host is said to be empty, and what comes after # is lost.
            is_cut = scheme != "unix" and "@" in parts.path + parts.query + parts.fragment
            is_cut = is_cut or parts.port == 0
        except ValueError:
            is_cut = True
        if is_cut:
            raise ValueError(
                "can't be read: write special characters of the password percent-encoded (# is %23, / is %2F, "
                "? is %3F, @ is %40, : is %3A, [ is %5B, % is %25), and the port as a number"
            )
        return secret

    @field_validator("model")
    @classmethod
    def _model_at_hand(cls, value: str | None) -> str | None:
        if value:
            try:
                checkpoint_files.version(checkpoint_files.find(value))
            except CheckpointError as error:
                raise ValueError(f"is {value}, which can't be used: {str(error).rstrip('.')}") from None
        return value

    @model_validator(mode="after")
    def _leave_threads_free(self) -> Settings:
        if self.max_waiting + 1 + _SPARE_THREADS > self.threads:
            raise ValueError(f"RIS_MAX_WAITING should be at most RIS_THREADS - {1 + _SPARE_THREADS}")
        return self

    def of_project(self, project: int) -> Settings:
        """These knobs as one project has them. Raises SettingsError, one sentence a mistake."""
        own = _own(project_env_file(self.home, project))
        return _with(self, tuple(own.items())) if own else self

    def secret(self, knob: str) -> str:
        """The value of a secret knob. Raises SettingsError, which names the variable, if it isn't set."""
        value: SecretStr | None = getattr(self, knob)
        if value is None or not value.get_secret_value():
            name = f"{PREFIX}{knob.upper()}"
            remedy = (
                f"`ris up` makes one; else put it into {env_file(self.home)} or the environment, or into a file that "
                f"{name}_FILE names."
            )
            raise SettingsError(f"{name} isn't set. {remedy}")
        return value.get_secret_value()

    def secrets(self) -> list[str]:
        """All secret values that are set, with the password inside `redis_url`: what must never be logged."""
        values = (getattr(self, name) for name in type(self).model_fields)
        secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        addresses = [secret.get_secret_value() for secret in (self.redis_url, self.proxy) if secret]
        passwords = [password for address in addresses if (password := urlsplit(address).password)]
        return [*secrets, *passwords, *map(unquote, passwords)]


def load(project: int | None = None) -> Settings:
    """Read the knobs from the environment and from ris.env, for one project from its own file as well.

    Raises SettingsError, one sentence a mistake.
    """
    file = env_file(home_folder())
    if restored_folder(file.parent).exists():
        raise SettingsError(f"A restore of {file.parent} was interrupted. Finish it: `ris restore --resume`.")
    _refuse_misspelt(file)
    settings = _checked(home=file.parent, _env_file=file, **_from_files(file))
    return settings if project is None else settings.of_project(project)


def is_own(knob: str) -> bool:
    """Whether a project may have its own value of a knob."""
    return knob.startswith(_OWN)


def secret_knobs() -> tuple[str, ...]:
    """The knobs that are secret, which may stand in a file each."""
    return tuple(name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None)


def _from_files(file: Path) -> dict[str, str]:
    """The secrets whose file is named, unless the environment has them and only ris.env names the file."""
    places: dict[str, Mapping[str, str | None]] = {"the environment": os.environ, str(file): dotenv_values(file)}
    named = {}
    for knob in secret_knobs():
        name = f"{PREFIX}{knob.upper()}"
        for place, given in places.items():
            path = given.get(f"{name}_FILE")
            if path and given.get(name):
                raise SettingsError(f"{name} and {name}_FILE are both set in {place}. Remove one of them.")
            if path:
                named[knob] = _read_secret(f"{name}_FILE", path)
            if path or given.get(name):
                break
    return named


def _read_secret(name: str, path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it isn't text"
        raise SettingsError(f"{name} is {path}, which can't be read ({why}).") from None
    if not secret:
        raise SettingsError(f"{name} is {path}, which is empty. Write the secret into it.")
    return secret


def _checked(**given: Any) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(" ".join(_sentence(problem) for problem in error.errors())) from None


# Label Studio asks for /setup whenever somebody opens a task, and checking takes milliseconds.
@lru_cache(maxsize=256)
def _with(settings: Settings, own: tuple[tuple[str, str], ...]) -> Settings:
    return _checked(**{**dict(settings), **dict(own)})


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname if urlsplit(url).port != 0 else None
    except ValueError:
        return None


def _own(file: Path) -> dict[str, str]:
    given = {name.removeprefix(PREFIX).lower(): value for name, value in dotenv_values(file).items() if value}
    for name in given:
        if name not in Settings.model_fields or not is_own(name):
            raise SettingsError(f"{PREFIX}{name.upper()} in {file} isn't a setting of a project. Remove it.")
    return given


def _refuse_misspelt(file: Path) -> None:
    # The last is no knob of the service: encoders look there for fetched weights.
    files = (f"{name}_file" for name in secret_knobs())
    names = {f"{PREFIX}{name}".upper() for name in (*Settings.model_fields, *files, "cache")}
    given = {name.upper() for name in (*os.environ, *dotenv_values(file))}
    for name in sorted(name for name in given - names if name.startswith(PREFIX)):
        closest = difflib.get_close_matches(name, names, 1)
        advice = f"Did you mean {closest[0]}?" if closest else "Remove it."
        raise SettingsError(f"{name} isn't a setting. {advice}")


def _sentence(problem: Any) -> str:
    # The value itself is left out: it may be a secret.
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    name = "_".join(str(part) for part in problem["loc"])
    return f"{PREFIX}{name.upper()} {message}." if name else f"{message}."
