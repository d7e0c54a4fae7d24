"""The whole studio, started as a person starts it, and a browser that is logged in to it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from editor import call
from playwright.sync_api import Browser, Page, sync_playwright
from running import Studio, free_ports, wait

from backend.labelstudio.client import LabelStudio
from backend.settings import load

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Quiet without a network.
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("studio") / "home"
    home.mkdir(mode=0o700)
    backend, label_studio, valkey = free_ports(3)
    (home / "ris.env").write_text(
        f"RIS_PORT={backend}\nRIS_LABEL_STUDIO_URL=http://127.0.0.1:{label_studio}\n"
        f"RIS_REDIS_URL=redis://:{secrets.token_urlsafe(16)}@127.0.0.1:{valkey}/0\n"
        # Each test finds its photo as nobody left it.
        "RIS_PRELABEL_REMEMBER=false\n"
    )
    log = home.parent / "up.log"
    # Where fetched models are looked for, by what it starts and by the commands beside it.
    os.environ["RIS_CACHE"] = str(home.parent / "cache")
    environment = {**os.environ, "RIS_HOME": str(home), "COLUMNS": "200"}
    with log.open("w") as output:
        command = [str(Path(sys.executable).with_name("ris")), "up"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait(process, log)
        os.environ["RIS_HOME"] = str(home)
        settings = load()
        with LabelStudio.from_settings(settings) as client:
            project = next(row["id"] for row in client.projects() if row["title"] == "Referring segmentation")
        yield Studio(home, settings, project)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, log.read_text()
        del os.environ["RIS_HOME"], os.environ["RIS_CACHE"]


@pytest.fixture(scope="session")
def label_studio(studio: Studio) -> Studio:
    return studio


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if program is None:
        pytest.skip("Chromium isn't installed: on Debian, apt install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """A page that is logged in as `ris up` says."""
    email, password = studio.settings.label_studio_email, studio.settings.secret("label_studio_password")
    with entered(browser, f"{studio.url}/user/login/", email, password) as page:
        yield page


@pytest.fixture
def second_page(browser: Browser, studio: Studio) -> Iterator[Page]:
    """A page of another person, who follows the organisation's link of invitation."""
    with LabelStudio(studio.url, studio.token) as client:
        link = call(client, "GET", "/api/invite")["invite_url"]
    with entered(browser, f"{studio.url}{link}", f"{secrets.token_hex(4)}@example.com", "of-no-use-1") as page:
        yield page


@contextmanager
def entered(browser: Browser, form: str, email: str, password: str) -> Iterator[Page]:
    """A page beyond the form for logging in or signing up."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(form)
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/" not in url, timeout=60_000)
    yield page
    context.close()
