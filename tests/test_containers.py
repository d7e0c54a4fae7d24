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
from backend.settings import Settings, secret_knobs

compose = pytest.importorskip("compose")

ROOT = Path(__file__).parents[1]
COMPOSE = Path(compose.__file__).with_name("docker-compose")
HADOLINT = Path(sys.executable).with_name("hadolint")
SECRETS = ("RIS_LABEL_STUDIO_PASSWORD", "RIS_PASSWORD", "RIS_WEBHOOK_SECRET", "RIS_REDIS_PASSWORD")
ONCE = {"secrets", "login", "connect"}
# Where a service may write besides /tmp and /secrets, which only one may.
VOLUMES = {"secrets": [], "postgres": ["/var/lib/postgresql/data"]}
PROFILES = {"cpu": ("backend", "worker", "trainer"), "gpu": ("backend-gpu", "worker-gpu", "trainer-gpu")}

Config = dict[str, Any]


def run_compose(env: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "compose.env"
    file.write_text(env)
    command = [str(COMPOSE), "--project-directory", str(ROOT), "--env-file", str(file), *options]
    # Nothing of this machine's environment may fill a gap in the file.
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return run([*command, "config", "--format", "json"], clean)


def read(env: str, folder: Path, *options: str) -> Config:
    done = run_compose(env, folder, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def config(profile: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read(f"COMPOSE_PROFILES={profile}", tmp_path_factory.mktemp("compose"))


@pytest.fixture
def services(config: Config) -> dict[str, Config]:
    return dict(config["services"])


def test_a_profile_starts_one_backend_and_two_workers(services: dict[str, Config], profile: str) -> None:
    common = {"secrets", "postgres", "valkey", "label-studio", "login", "connect"}
    assert set(services) == common | set(PROFILES[profile])


@pytest.mark.parametrize(
    ("options", "profile"), [((), "cpu"), (("--profile", "gpu"), "gpu"), (("--profile", "cpu"), "cpu")]
)
def test_without_any_env_the_cpu_is_taken(options: tuple[str, ...], profile: str, tmp_path: Path) -> None:
    started = read("", tmp_path, *options)["services"]
    assert {name for name in started if name.startswith(("backend", "worker", "trainer"))} == set(PROFILES[profile])


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
    postgres = {name: environment.pop(name) for name in list(environment) if name.startswith(("POSTGRE", "DJANGO"))}
    assert postgres == {
        "DJANGO_DB": "default",
        "POSTGRE_HOST": "postgres",
        "POSTGRE_PORT": "5432",
        "POSTGRE_NAME": services["postgres"]["environment"]["POSTGRES_DB"],
        "POSTGRE_USER": services["postgres"]["environment"]["POSTGRES_USER"],
        "POSTGRE_PASSWORD_FILE": services["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"],
    }
    assert environment.pop("LABEL_STUDIO_USERNAME") == "admin@example.com"
    assert environment.pop("LABEL_STUDIO_PASSWORD_FILE") == "/secrets/label_studio_password"
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
        assert service["pids_limit"] > 0, name
        assert set(service["tmpfs"]) == {"/tmp", *(["/var/run/postgresql"] if name == "postgres" else [])}, name
        volumes = {volume["target"]: volume.get("read_only", False) for volume in service["volumes"]}
        assert volumes.pop("/secrets") is (name != "secrets"), name
        assert list(volumes) == VOLUMES.get(name, ["/data"]), name
        assert service.get("user") == ("10001:10001" if name == "postgres" else None), name
        assert service.get("network_mode") == ("none" if name == "secrets" else None), name
        assert not {"privileged", "pid", "ipc", "cap_add"} & set(service), name


def test_what_runs_on_has_a_limit_of_memory_and_people_come_first(services: dict[str, Config]) -> None:
    for name, service in services.items():
        assert ("mem_limit" in service) is (name not in ONCE), name
    shares = [int(services[name]["cpu_shares"]) for name in sorted(services) if "cpu_shares" in services[name]]
    # Of backend, trainer and worker.
    assert shares == [1024, 256, 512]


def test_limits_are_ones_to_set(tmp_path: Path) -> None:
    env = "RIS_TRAINER_MEMORY=2g\nRIS_TRAINER_CPUS=1.5\nPOSTGRES_MEMORY=3g\n"
    services = read(env, tmp_path)["services"]
    assert (services["trainer"]["mem_limit"], services["trainer"]["cpus"]) == (str(2 << 30), 1.5)
    assert services["postgres"]["mem_limit"] == str(3 << 30)
    assert "cpus" not in services["backend"]


def published(services: dict[str, Config]) -> dict[str, list[tuple[str, str, int]]]:
    """Address, port and the container's port, by service."""
    return {
        name.removesuffix("-gpu"): [(port["host_ip"], port["published"], port["target"]) for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }


def test_what_people_open_is_published_on_this_machine_and_nothing_else(services: dict[str, Config]) -> None:
    assert published(services) == {
        "label-studio": [("127.0.0.1", "8080", 8080)],
        "backend": [("127.0.0.1", "9090", 9090)],
    }


def test_no_variable_publishes_the_console_beyond_this_machine(tmp_path: Path) -> None:
    env = "CONSOLE_PORT=9191\nLABEL_STUDIO_ADDRESS=0.0.0.0\nRIS_HOST=0.0.0.0\n"
    assert published(read(env, tmp_path)["services"])["backend"] == [("127.0.0.1", "9191", 9090)]
    # An address smuggled in with the port is none.
    assert run_compose("CONSOLE_PORT=0.0.0.0:9191", tmp_path).returncode != 0


def test_the_queue_is_out_of_label_studios_reach_and_the_database_out_of_ours(config: Config) -> None:
    assert config["networks"]["queue"]["internal"]
    assert config["networks"]["database"]["internal"]
    reach = {name for name, service in config["services"].items() if "database" in service.get("networks", {})}
    assert reach == {"postgres", "label-studio"}
    reach = {name for name, service in config["services"].items() if "queue" in service.get("networks", {})}
    assert {name.removesuffix("-gpu") for name in reach} == {"valkey", "backend", "worker", "trainer"}
    assert set(config["services"]["valkey"]["networks"]) == {"queue"}


def test_each_server_keeps_its_data_apart(services: dict[str, Config]) -> None:
    sources = {name: [volume["source"] for volume in service["volumes"]] for name, service in services.items()}
    for server in ("valkey", "label-studio", "postgres"):
        assert [name for name, mounted in sources.items() if server in mounted] == [server]


def test_what_runs_on_is_watched_and_what_ends_is_not_restarted(services: dict[str, Config]) -> None:
    for name, service in services.items():
        once = name in ONCE
        assert ("healthcheck" in service) is not once, name
        assert service["restart"] == ("no" if once else "unless-stopped"), name


def test_the_gpu_is_asked_for_in_its_profile_alone(services: dict[str, Config], profile: str) -> None:
    asking = {name for name, service in services.items() if "deploy" in service}
    assert asking == (set(PROFILES["gpu"]) if profile == "gpu" else set())
    for name in asking:
        assert services[name]["build"]["args"] == {"TORCH_INDEX": "https://pypi.org/simple"}


def test_the_backend_knows_every_setting_that_it_gets(services: dict[str, Config]) -> None:
    settings = {f"RIS_{name}".upper() for name in Settings.model_fields}
    settings |= {f"RIS_{name}_FILE".upper() for name in secret_knobs()}
    for name, service in services.items():
        assert {key for key in service["environment"] if key.startswith("RIS_")} <= settings, name


def test_secrets_of_env_reach_the_first_start_and_nobody_else(tmp_path: Path) -> None:
    services = read("".join(f"{name}=value-of-{name}\n" for name in SECRETS), tmp_path)["services"]
    given = services.pop("secrets")["environment"]
    assert given["RIS_REDIS_URL"] == "redis://:value-of-RIS_REDIS_PASSWORD@valkey:6379/0"
    assert all(given[name] == f"value-of-{name}" for name in SECRETS if name != "RIS_REDIS_PASSWORD")
    assert "value-of" not in json.dumps(services)


def test_the_example_names_every_variable_of_the_file_and_sets_none() -> None:
    text = (ROOT / ".env.example").read_text()
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert set(re.findall(r"^# (\w+)=", text, flags=re.M)) == used
    assert not re.search(r"^[^#\s]", text, flags=re.M)
    # An example that sets nothing is as good as none.
    assert set(re.findall(r"^# (\w+)=$", text, flags=re.M)) == set(SECRETS)


@pytest.fixture
def label_studio_home(tmp_path: Path) -> dict[str, str]:
    for name in ("label_studio_password", "postgres_password"):
        (tmp_path / name).write_text(f'it\'s a "secret" $HOME {name}\n')
    return {
        "PATH": "/usr/bin:/bin",
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path),
        "LABEL_STUDIO_PASSWORD_FILE": str(tmp_path / "label_studio_password"),
        "POSTGRE_PASSWORD_FILE": str(tmp_path / "postgres_password"),
    }


def test_label_studio_gets_the_secrets_of_its_files(label_studio_home: dict[str, str]) -> None:
    done = run(["sh", str(ROOT / "deploy" / "with-secrets"), "env"], label_studio_home)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "PASSWORD" in line]
    assert sorted(lines) == [
        'LABEL_STUDIO_PASSWORD=it\'s a "secret" $HOME label_studio_password',
        'POSTGRE_PASSWORD=it\'s a "secret" $HOME postgres_password',
    ]


def test_label_studio_doesnt_start_without_a_secret(label_studio_home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "postgres_password").unlink()
    done = run(["sh", str(ROOT / "deploy" / "with-secrets"), "echo", "started"], label_studio_home)
    assert done.returncode != 0
    assert done.stdout == ""


def test_an_older_database_isnt_left_behind_silently(label_studio_home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "label_studio.sqlite3").write_bytes(b"rows")
    command = ["sh", str(ROOT / "deploy" / "with-secrets"), "echo", "started"]
    done = run(command, label_studio_home)
    assert (done.returncode, done.stdout) == (1, "")
    assert "LABEL_STUDIO_DATABASE=sqlite" in done.stderr
    assert run(command, {**label_studio_home, "DJANGO_DB": "sqlite"}).stdout == "started\n"


def test_hadolint_finds_nothing() -> None:
    done = run([str(HADOLINT), str(ROOT / "Dockerfile")])
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stages_hold_no_build_tools_and_no_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.index("AS runtime") :]
    assert re.findall(r"^USER (.*)$", final, flags=re.M) == ["10001:10001"]
    assert "rm -rf /usr/local/bin/pip*" in final
    assert not re.search(r"\b(pip (install|download)|uv|apt-get|curl|wget|git)\b", final)


def test_every_image_and_requirement_is_pinned() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-", dockerfile, flags=re.M)
    images = re.findall(r"^ +image: (.*)$", (ROOT / "docker-compose.yml").read_text(), flags=re.M)
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    for name in ("constraints.txt", "constraints-label-studio.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
        assert len(lines) > 50
        assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][a-z0-9.]*", line)] == []


def test_copies_only_what_dockerignore_lets_through() -> None:
    allowed = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), flags=re.M))
    copies = re.findall(
        r"^COPY (?:--chmod=\d+ )?(?!--)(.*) /(?:build|usr/local/bin)", (ROOT / "Dockerfile").read_text(), flags=re.M
    )
    assert {name for line in copies for name in line.split()} == allowed
