"""Knobs: where they come from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pointers import fake_pointer

from backend import services
from backend.home import project_env_file
from backend.settings import Settings, SettingsError, load, secret_knobs
from ris_core import checkpoint_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Path:
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    return tmp_path


def test_every_knob_is_documented_in_one_line() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith(".")
        assert "\n" not in field.description


def test_the_defaults_do_without_any_file(home: Path) -> None:
    settings = load()
    assert settings.home == home
    assert (settings.host, settings.port) == ("127.0.0.1", 9090)
    assert settings.password is None


def test_the_home_is_beside_us_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load().home == Path(".ris")


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "ris.env").write_text("RIS_PORT=9191\nRIS_MAX_TASKS=7\nPATH=ignored\n")
    monkeypatch.setenv("RIS_MAX_TASKS", "8")
    settings = load()
    assert (settings.port, settings.max_tasks) == (9191, 8)


def test_hosts_are_a_list_and_urls_lose_their_last_slash(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_IMAGE_HOSTS", " minio:9000 , 10.0.0.7,")
    monkeypatch.setenv("RIS_LABEL_STUDIO_URL", "http://studio/")
    settings = load()
    assert settings.image_hosts == ("minio:9000", "10.0.0.7")
    assert settings.label_studio_url == "http://studio"


def test_where_encoders_are_kept_is_no_misspelt_knob(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_CACHE", str(home))
    assert load().port > 0


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("RIS_PORT", "ninety", "RIS_PORT should be a valid integer"),
        ("RIS_PORT", "70000", "RIS_PORT should be less than or equal to 65535"),
        ("RIS_MAX_TASKS", "0", "RIS_MAX_TASKS should be greater than 0"),
        ("RIS_LABEL_STUDIO_URL", "localhost:8080", "RIS_LABEL_STUDIO_URL should start with http"),
        ("RIS_LABEL_STUDIO_URL", "http://[", "RIS_LABEL_STUDIO_URL isn't an address"),
        ("RIS_LABEL_STUDIO_URL", "http://studio:port", "RIS_LABEL_STUDIO_URL isn't an address"),
        ("RIS_PROXY", "socks5://proxy:1080", "RIS_PROXY should start with http://"),
        ("RIS_PROXY", "http://me:pa/ss@proxy:3128", "RIS_PROXY isn't an address"),
        ("RIS_LOG_LEVEL", "LOUD", "RIS_LOG_LEVEL should be 'DEBUG', 'INFO'"),
        ("RIS_MAX_WAITING", "5", "RIS_MAX_WAITING should be at most RIS_THREADS - 4"),
        ("RIS_PREDICT_SECONDS", "0", "RIS_PREDICT_SECONDS should be greater than 0"),
        ("RIS_PASWORD", "x", "RIS_PASWORD isn't a setting. Did you mean RIS_PASSWORD?"),
        ("RIS_ZZZ", "x", "RIS_ZZZ isn't a setting. Remove it."),
    ],
)
def test_a_wrong_knob_is_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load()
    assert sentence in str(raised.value)
    assert "pydantic" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://:pa#ssw0rd@127.0.0.1:6490/0", "# is %23"),
        ("redis://:a/b-ssw0rd@127.0.0.1:6490/0", "percent-encoded"),
        ("redis://user:12/ssw0rd@127.0.0.1:6490/0", "percent-encoded"),
        ("redis://:a?ssw0rd@127.0.0.1:6490/0", "? is %3F"),
        ("redis://:a[ssw0rd@127.0.0.1:6490/0", "[ is %5B"),
        ("redis://:ssw0rd@127.0.0.1:port/0", "the port as a number"),
        ("redis+sentinel://:ssw0rd@127.0.0.1:26379/mymaster/0", "sentinel, which isn't supported"),
        ("127.0.0.1:6490", "should start with redis://, rediss:// or unix://"),
        (":ssw0rd@127.0.0.1:6490", "should start with redis://"),
        ("http://:ssw0rd@127.0.0.1:6490", "should start with redis://"),
    ],
)
def test_an_address_of_valkey_that_cant_be_read_says_the_remedy_and_no_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, url: str, remedy: str
) -> None:
    monkeypatch.setenv("RIS_REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^RIS_REDIS_URL ") as raised:
        load()
    assert remedy in str(raised.value)
    assert "ssw0rd" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%40ss%2Fw%23%3A%25rd%21@127.0.0.1:6490/0",
        "redis://:p@ss@127.0.0.1:6490/0",
        "rediss://user:word@valkey.example",
        "unix:///run/@valkey.sock?db=1",
        "redis://[::1]:6379/0",
    ],
)
def test_addresses_of_valkey_that_worked_still_do(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RIS_REDIS_URL", url)
    assert load().secret("redis_url") == url


def test_the_password_is_secret_as_it_is_written_and_as_it_is_meant(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIS_REDIS_URL", "redis://:p%40ss@127.0.0.1:6490/0")
    assert {"p%40ss", "p@ss"} <= set(load().secrets())


def test_all_wrong_knobs_are_named_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_PORT", "x")
    monkeypatch.setenv("RIS_MAX_TASKS", "x")
    with pytest.raises(SettingsError, match=r"RIS_PORT .*RIS_MAX_TASKS "):
        load()


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_secret_is_named_when_it_is_needed(home: Path, value: str | None) -> None:
    (home / "ris.env").write_text("" if value is None else "RIS_PASSWORD=\n")
    with pytest.raises(SettingsError, match=r"RIS_PASSWORD isn't set.*ris\.env"):
        load().secret("password")


def test_secrets_are_not_printed_but_can_be_listed(home: Path) -> None:
    (home / "ris.env").write_text(
        "RIS_PASSWORD=pass-1\nRIS_WEBHOOK_SECRET=hook-2\nRIS_LABEL_STUDIO_TOKEN=token-3\n"
        "RIS_REDIS_URL=redis://:valkey-4@localhost/0\n"
    )
    settings = load()
    for secret in ("pass-1", "hook-2", "token-3", "valkey-4"):
        assert secret not in repr(settings)
        assert secret in settings.secrets()


def test_a_secret_may_stand_in_a_file_that_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("pass-1\n")
    (tmp_path / "two").write_text("pass-2")
    (home / "ris.env").write_text(f"RIS_PASSWORD_FILE={tmp_path / 'one'}\n")
    assert load().secret("password") == "pass-1"
    monkeypatch.setenv("RIS_PASSWORD_FILE", str(tmp_path / "two"))
    assert load().secret("password") == "pass-2"
    (home / "ris.env").write_text("RIS_PASSWORD=pass-3\n")
    assert load().secret("password") == "pass-2"
    monkeypatch.delenv("RIS_PASSWORD_FILE")
    monkeypatch.setenv("RIS_PASSWORD", "pass-4")
    (home / "ris.env").write_text("RIS_PASSWORD_FILE=/nowhere\n")
    assert load().secret("password") == "pass-4"


def test_every_secret_may_and_nothing_else(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("redis://:word@valkey/0")
    assert set(secret_knobs()) == {
        name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
    }
    for knob in set(secret_knobs()) - {"proxy"}:
        monkeypatch.setenv(f"RIS_{knob.upper()}_FILE", str(file))
    assert {load().secret(knob) for knob in set(secret_knobs()) - {"proxy"}} == {"redis://:word@valkey/0"}
    monkeypatch.setenv("RIS_PORT_FILE", str(file))
    with pytest.raises(SettingsError, match="RIS_PORT_FILE isn't a setting"):
        load()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"RIS_PASSWORD_FILE is .*secret, which can't be read \(No such file"),
        (b" \n", r"RIS_PASSWORD_FILE is .*secret, which is empty"),
        (b"\xff\xfe", r"RIS_PASSWORD_FILE is .*secret, which can't be read \(it isn't text\)"),
    ],
)
def test_a_file_without_a_secret_is_a_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("RIS_PASSWORD_FILE", str(file))
    with pytest.raises(SettingsError, match=sentence):
        load()


def test_a_secret_and_its_file_at_one_place_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_PASSWORD", "pass-1")
    monkeypatch.setenv("RIS_PASSWORD_FILE", "/secrets/password")
    with pytest.raises(SettingsError, match="RIS_PASSWORD and RIS_PASSWORD_FILE are both set in the environment"):
        load()


def test_a_wrong_secret_is_not_quoted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_LABEL_STUDIO_URL", "token-in-the-wrong-place")
    with pytest.raises(SettingsError) as raised:
        load()
    assert "token-in-the-wrong-place" not in str(raised.value)


def own(home: Path, *lines: str) -> None:
    file = project_env_file(home, 7)
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines))


def test_a_projects_own_file_wins_for_that_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_PRELABEL_LABELS", "true")
    (home / "ris.env").write_text("RIS_PASSWORD=pass-1\nRIS_FINETUNE_MIN_NEW=5\nRIS_IMAGE_HOSTS=minio:9000\n")
    own(home, "RIS_PRELABEL_LABELS=false", "RIS_FINETUNE_MIN_NEW=3")
    for settings in (load(7), load().of_project(7)):
        assert (settings.prelabel_labels, settings.finetune_min_new) == (False, 3)
        assert (settings.secret("password"), settings.image_hosts, settings.home) == ("pass-1", ("minio:9000",), home)
    assert load(8) == load() == load().of_project(8)
    assert (load().prelabel_labels, load().finetune_min_new) == (True, 5)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("RIS_PORT=1234", "RIS_PORT in .* isn't a setting of a project"),
        ("RIS_PRELABEL_ZEBRAS=1", "RIS_PRELABEL_ZEBRAS in .* isn't a setting of a project"),
        ("RIS_PRELABEL_OBJECTS=all", "RIS_PRELABEL_OBJECTS should be 'one', 'each' or 'instances'"),
        ("RIS_PRELABEL_SMALLEST=1", "RIS_PRELABEL_SMALLEST should be less than 1"),
    ],
)
def test_a_wrong_knob_of_a_project_is_a_sentence(home: Path, line: str, sentence: str) -> None:
    own(home, line)
    with pytest.raises(SettingsError, match=sentence):
        load(7)
    assert load(8)


def test_the_model_that_projects_start_at_is_looked_for_at_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RIS_MODEL", "owlv2+sam2")
    with pytest.raises(SettingsError) as raised:
        load()
    assert str(raised.value) == (
        "RIS_MODEL is owlv2+sam2, which can't be used: The weights of owlv2+sam2 aren't on this machine. Run "
        "`ris fetch owlv2+sam2`: that takes about 780 MB of disk, and to answer 1,500 MB of memory."
    )
    monkeypatch.setenv("RIS_MODEL", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"^RIS_MODEL is .*nowhere, which can't be used: .* isn't a checkpoint"):
        load()
    folder = fake_pointer("owlv2+sam2", tmp_path / "cache", monkeypatch)
    for named in ("owlv2+sam2", str(folder)):
        monkeypatch.setenv("RIS_MODEL", named)
        base = services.registry(load()).base
        assert (base.folder, base.card["origin"]) == (folder, "zero-shot")
    monkeypatch.setenv("RIS_MODEL", "vipa")
    assert services.registry(load()).base.name.startswith("vipa-")
    monkeypatch.delenv("RIS_MODEL")
    assert services.registry(load()).base.folder == checkpoint_files.shipped()
