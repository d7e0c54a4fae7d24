"""The container files, as the real Compose and the real hadolint read them."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.local.services import commands, label_studio_environment
from backend.settings import Settings

compose = pytest.importorskip("compose")

ROOT = Path(__file__).parents[1]
COMPOSE = Path(compose.__file__).with_name("docker-compose")
HADOLINT = Path(sys.executable).with_name("hadolint")
SECRETS = ("RIS_LABEL_STUDIO_PASSWORD", "RIS_PASSWORD", "RIS_WEBHOOK_SECRET", "RIS_REDIS_PASSWORD")
PROFILES = {"cpu": ("backend", "worker", "trainer"), "gpu": ("backend-gpu", "worker-gpu", "trainer-gpu")}

Config = dict[str, Any]


def run_compose(env: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "compose.env"
    file.write_text(env)
    command = [str(COMPOSE), "--project-directory", str(ROOT), "--env-file", str(file)]
    # Nothing of this machine's environment may fill a gap in the file.
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return run([*command, "config", "--format", "json"], clean)


def run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def example(**values: str) -> str:
    """.env.example with each secret filled in by its own name, and `values` instead of what it says."""
    text = (ROOT / ".env.example").read_text()
    text = re.sub(r"^(\w+)=$", lambda match: f"{match[1]}=value-of-{match[1]}", text, flags=re.M)
    for name, value in values.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.M)
        assert count == 1, f"{name} is not in .env.example"
    return text


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def config(profile: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    done = run_compose(example(COMPOSE_PROFILES=profile), tmp_path_factory.mktemp("compose"))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def services(config: Config) -> dict[str, Config]:
    return dict(config["services"])


def test_a_profile_starts_one_backend_and_two_workers(services: dict[str, Config], profile: str) -> None:
    common = {"valkey", "label-studio", "login", "connect"}
    assert set(services) == common | set(PROFILES[profile])


def test_each_command_is_the_one_that_ris_up_runs(services: dict[str, Config]) -> None:
    for name, command in commands("0.0.0.0", 8080).items():
        used = [service["command"] for key, service in services.items() if key.removesuffix("-gpu") == name]
        assert used == [list(command)]


def test_the_images_run_those_commands_by_default() -> None:
    text = (ROOT / "Dockerfile").read_text()
    images = {match[1]: json.loads(match[2]) for match in re.finditer(r"AS ([\w-]+)\n(?:(?!FROM).*\n)*?CMD (.*)", text)}
    line = commands("0.0.0.0", 8080)
    assert images == {"label-studio": list(line["label-studio"]), "ris": list(line["backend"])}


def test_label_studio_gets_the_environment_of_ris_up(services: dict[str, Config]) -> None:
    environment = dict(services["label-studio"]["environment"])
    assert environment.pop("LABEL_STUDIO_USERNAME") == "admin@example.com"
    assert environment.pop("LABEL_STUDIO_PASSWORD") == "value-of-RIS_LABEL_STUDIO_PASSWORD"
    address = next(service for name, service in services.items() if name.startswith("backend"))["networks"]["labelling"]
    assert environment == label_studio_environment("/data", f"{address['ipv4_address']}/32")


def test_the_backend_has_an_address_within_its_network(config: Config) -> None:
    (subnet,) = config["networks"]["labelling"]["ipam"]["config"]
    for name, service in config["services"].items():
        if name.startswith("backend"):
            address = service["networks"]["labelling"]["ipv4_address"]
            assert ipaddress.ip_address(address) in ipaddress.ip_network(subnet["subnet"])


def test_nothing_may_do_more_than_it_must(services: dict[str, Config]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp"], name
        assert [volume["target"] for volume in service["volumes"]] == ["/data"], name
        assert not {"privileged", "user", "pid", "ipc", "network_mode", "cap_add"} & set(service), name


def test_label_studio_alone_is_published_and_on_this_machine(services: dict[str, Config]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"label-studio"}
    assert [port["host_ip"] for port in published["label-studio"]] == ["127.0.0.1"]


def test_the_queue_is_out_of_label_studios_reach(config: Config) -> None:
    assert config["networks"]["queue"]["internal"]
    reach = {name for name, service in config["services"].items() if "queue" in service["networks"]}
    assert {name.removesuffix("-gpu") for name in reach} == {"valkey", "backend", "worker", "trainer"}
    assert set(config["services"]["valkey"]["networks"]) == {"queue"}


def test_valkey_keeps_its_data_apart(services: dict[str, Config]) -> None:
    sources = {name: service["volumes"][0]["source"] for name, service in services.items()}
    assert [name for name, source in sources.items() if source == sources["valkey"]] == ["valkey"]
    assert [name for name, source in sources.items() if source == sources["label-studio"]] == ["label-studio"]


def test_what_runs_on_is_watched_and_what_ends_is_not_restarted(services: dict[str, Config]) -> None:
    for name, service in services.items():
        once = name in ("login", "connect")
        assert ("healthcheck" in service) is not once, name
        assert service["restart"] == ("no" if once else "unless-stopped"), name


def test_the_gpu_is_asked_for_in_its_profile_alone(services: dict[str, Config], profile: str) -> None:
    asking = {name for name, service in services.items() if "deploy" in service}
    assert asking == (set(PROFILES["gpu"]) if profile == "gpu" else set())
    for name in asking:
        assert services[name]["build"]["args"] == {"TORCH_INDEX": "https://pypi.org/simple"}


def test_the_backend_knows_every_setting_that_it_gets(services: dict[str, Config]) -> None:
    settings = {f"RIS_{name}".upper() for name in Settings.model_fields}
    for name, service in services.items():
        assert {key for key in service["environment"] if key.startswith("RIS_")} <= settings, name


@pytest.mark.parametrize("missing", [*SECRETS, "COMPOSE_PROFILES"])
def test_compose_says_what_is_missing(missing: str, tmp_path: Path) -> None:
    done = run_compose(example(**{missing: ""}), tmp_path)
    assert done.returncode != 0
    assert f"Set {missing}" in done.stderr
    assert ".env" in done.stderr


def test_the_example_holds_no_secret() -> None:
    empty = re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), flags=re.M)
    assert sorted(empty) == sorted(SECRETS)


def test_hadolint_finds_nothing() -> None:
    done = run([str(HADOLINT), str(ROOT / "Dockerfile")])
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stages_hold_no_build_tools_and_no_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.index("AS runtime") :]
    assert re.findall(r"^USER (.*)$", final, flags=re.M) == ["10001:10001"]
    assert not re.search(r"\b(pip|uv|apt-get|curl|wget|git)\b", final)


def test_every_image_and_requirement_is_pinned() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-", dockerfile, flags=re.M)
    for name in ("constraints.txt", "constraints-label-studio.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
        assert len(lines) > 50
        assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][a-z0-9.]*", line)] == []


def test_copies_only_what_dockerignore_lets_through() -> None:
    allowed = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), flags=re.M))
    copies = re.findall(r"^COPY (?!--from)(.*) /build", (ROOT / "Dockerfile").read_text(), flags=re.M)
    assert {name for line in copies for name in line.split()} == allowed
