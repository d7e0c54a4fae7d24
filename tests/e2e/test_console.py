"""The console in a real browser, beside the real studio: by mouse, by keyboard, without scripts, and from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from checkpoints import random_checkpoint
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from running import Studio

from backend import services
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import mask_regions, prompt_region
from backend.projects.connect import LABEL_CONFIG

pytestmark = pytest.mark.e2e

HEIGHT, WIDTH = 48, 64
TASKS = 300


def picture(number: int) -> str:
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture(scope="module")
def project(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A connected project of its own: many tasks, two of them annotated, and a version that waits to be promoted."""
    config, mask = parse(LABEL_CONFIG), np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[10:30, 20:50] = True
    with LabelStudio(studio.url, studio.token) as client:
        project = int(client.create_project("Console", LABEL_CONFIG)["id"])
        assert studio.ris("connect", "--project", str(project)).returncode == 0
        client.import_tasks(project, [{"image": picture(number), "prompt": "a cat"} for number in range(TASKS)])
        tasks = [task["id"] for task in client.tasks(project)]
        label = next(label for label in config.labels if label.stored == "cat")
        for task in tasks[:2]:
            regions = mask_regions(config, label, mask, 1.0, "a cat")
            client.create_annotation(task, [*regions, prompt_region(config, mask.shape, "a cat")])
    folder = random_checkpoint(tmp_path_factory.mktemp("version") / "model", seed=7)
    services.registry(studio.settings).add(project, folder, {"origin": "fine-tuned", "reason": "It is a trial."})
    return project


@contextmanager
def visiting(browser: Browser, studio: Studio, **context: object) -> Iterator[BrowserContext]:
    """A browser that knows the console's password."""
    login = {"username": studio.settings.username, "password": studio.settings.secret("password")}
    visit = browser.new_context(http_credentials=login, **context)  # type: ignore[arg-type]
    visit.set_default_timeout(60_000)
    yield visit
    visit.close()


@pytest.fixture
def console(browser: Browser, studio: Studio) -> Iterator[Page]:
    """The list of projects; whatever a page complains of fails the test."""
    said: list[str] = []
    with visiting(browser, studio, viewport={"width": 1440, "height": 900}) as visit:
        page = visit.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address(studio))
        yield page
    assert said == []


def address(studio: Studio, path: str = "") -> str:
    return f"http://127.0.0.1:{studio.settings.port}/console/{path}"


def serving(studio: Studio, project: int) -> str:
    return services.registry(studio.settings).pointer(project).version


def jobs(studio: Studio) -> list[dict]:
    return json.loads(studio.ris("jobs", "--json").stdout)["jobs"]


def test_a_version_is_promoted_and_taken_back_by_clicking(studio: Studio, project: int, console: Page) -> None:
    before = serving(studio, project)
    console.get_by_role("link", name="Console", exact=True).click()
    console.get_by_role("link", name=re.compile("^Promote")).click()
    expect(console.get_by_text("It is a trial.")).to_be_visible()
    console.get_by_role("button", name="Promote").click()
    expect(console.get_by_text("It is in production now.")).to_be_visible()
    assert serving(studio, project) != before
    console.get_by_role("link", name="Roll back", exact=True).click()
    expect(console.get_by_role("heading", name=re.compile("Roll back to"))).to_contain_text(before)
    console.get_by_role("button", name="Roll back").click()
    expect(console.get_by_text("The version before serves again.")).to_be_visible()
    assert serving(studio, project) == before


def test_an_export_is_started_with_the_keyboard_alone_and_seen_to_its_end(
    studio: Studio, project: int, console: Page
) -> None:
    def tab_to(name: str, limit: int = 100) -> None:
        for _ in range(limit):
            console.keyboard.press("Tab")
            focused = console.evaluate(
                "[document.activeElement.innerText || '', document.activeElement.matches(':focus-visible'), "
                "getComputedStyle(document.activeElement).outlineWidth]"
            )
            if focused[0].strip() == name:
                # Whoever comes by keyboard sees where they are.
                assert focused[1:] == [True, "3px"]
                return
        raise AssertionError(f"No way to {name}.")

    tab_to("Skip to the content", 1)
    console.keyboard.press("Enter")
    tab_to("Console")
    console.keyboard.press("Enter")
    console.wait_for_url("**/projects/*")
    tab_to("Export")
    console.keyboard.press("Enter")
    console.wait_for_url("**/export")
    tab_to("Export")
    console.keyboard.press("Enter")
    console.wait_for_url("**/jobs/export-*")
    # Shown by the page itself, which nobody loads anew.
    expect(console.get_by_role("status")).to_contain_text("finished", timeout=120_000)
    expect(console.get_by_role("status")).to_contain_text("2 images, 2 masks, 2 expressions")
    assert (studio.home / "exports" / f"project-{project}-coco" / "instances.json").is_file()


def test_a_batch_is_seen_running_and_cancelled(studio: Studio, project: int, console: Page) -> None:
    console.get_by_role("link", name="Console", exact=True).click()
    console.get_by_role("link", name="Pre-label", exact=True).click()
    console.get_by_label("Prompts").fill("a cat\na dog\n")
    console.get_by_role("button", name="Pre-label").click()
    console.wait_for_url("**/batches/*")
    expect(console.get_by_role("status")).to_contain_text(f"of {TASKS} done")
    expect(console.get_by_text("“a cat”, “a dog”")).to_be_visible()
    console.get_by_role("link", name="Cancel").click()
    console.get_by_role("button", name="Cancel the batch").click()
    expect(console.get_by_role("status")).to_contain_text("cancelled")
    name = console.url.rpartition("/")[2]
    batches = json.loads(studio.ris("jobs", "--json").stdout)["batches"]
    [batch] = [batch for batch in batches if batch["id"] == name]
    assert batch["state"] == "cancelled"
    assert batch["done"] < TASKS
    console.get_by_role("link", name="Jobs", exact=True).click()
    expect(console.get_by_role("row", name=re.compile(f"^{name}"))).to_contain_text("cancelled")


def test_pages_work_without_scripts(studio: Studio, project: int, browser: Browser) -> None:
    with visiting(browser, studio, java_script_enabled=False, viewport={"width": 390, "height": 844}) as visit:
        page = visit.new_page()
        page.goto(address(studio, f"projects/{project}/fine-tune"))
        page.get_by_role("button", name="Fine-tune").click()
        page.wait_for_url("**/jobs/learn-*")
        # The page loads itself anew.
        expect(page.get_by_role("status")).to_contain_text(re.compile("finished|failed"), timeout=120_000)


def test_another_site_can_do_nothing_though_the_browser_knows_the_password(
    studio: Studio, project: int, browser: Browser
) -> None:
    target = address(studio, f"projects/{project}/fine-tune")
    before = {job["id"] for job in jobs(studio)}
    with elsewhere(f'<form method="post" action="{target}"><button>Win a cat</button></form>') as trap:
        for host in ("127.0.0.1", "localhost"):
            with visiting(browser, studio) as visit:
                page = visit.new_page()
                page.goto(address(studio, f"projects/{project}/fine-tune"))
                page.goto(f"http://{host}:{trap}/")
                with page.expect_response(target) as answer:
                    page.get_by_role("button").click()
                assert answer.value.status == 403
                expect(page.get_by_role("alert")).to_contain_text("nothing was done")
                # Nor is it shown inside another page.
                page.set_content(f'<iframe src="{address(studio)}"></iframe>')
                page.wait_for_timeout(500)
                assert "Projects" not in page.frames[-1].content()
    assert {job["id"] for job in jobs(studio)} - before == set()


@contextmanager
def elsewhere(body: str) -> Iterator[int]:
    """Another site on this machine -> its port."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_doctor_is_run_by_a_click(studio: Studio, project: int, console: Page) -> None:
    console.get_by_role("link", name="Doctor").click()
    console.get_by_label("Project").select_option(str(project))
    console.get_by_role("button", name="Examine").click()
    expect(console.get_by_role("status")).to_contain_text(re.compile(r"\d+ ok"), timeout=120_000)
    expect(console.get_by_role("row", name=re.compile("^webhook"))).to_contain_text("Events arrive")
