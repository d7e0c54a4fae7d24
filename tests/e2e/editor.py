"""A person at Label Studio's pages, and calls of its API that its own pages make, and the product doesn't."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect
from running import Studio

from backend.labelstudio.client import LabelStudio

# Set to a folder to keep the screenshots.
SHOTS = os.environ.get("E2E_SCREENSHOTS")


def call(client: LabelStudio, method: str, path: str, **request: Any) -> Any:
    """One request as the client's user, which must succeed -> the JSON of the answer, None if it is empty."""
    response = httpx.request(method, client.url + path, auth=client.auth, timeout=130, trust_env=False, **request)
    assert response.is_success, response.text
    return response.json() if response.content else None


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def open_task(page: Page, studio: Studio, photo: str, project: int | None = None) -> int:
    project = project or studio.project
    with LabelStudio(studio.url, studio.token) as client:
        task = next(row["id"] for row in client.tasks(project) if row["data"]["image"].endswith(f"-{photo}"))
    page.goto(f"{studio.url}/projects/{project}/data?task={task}")
    expect(page.get_by_placeholder("What are you looking for")).to_be_visible(timeout=60_000)
    return int(task)


def type_prompt(page: Page, prompt: str) -> None:
    box = page.get_by_placeholder("What are you looking for")
    with page.expect_response(lambda response: "interactive-annotating" in response.url, timeout=60_000) as answer:
        box.fill(prompt)
        box.press("Enter")
    assert answer.value.ok


def switch_on(page: Page, *, accepting: bool) -> None:
    """Auto-Annotation, once for a browser; with Auto-Accept beside it masks become regions by themselves."""
    page.get_by_text("Auto-Annotation", exact=True).click()
    if accepting:
        page.get_by_text("Auto-Accept Suggestions", exact=True).click()


def submit(page: Page) -> None:
    page.get_by_label("Submit current annotation").click()
    expect(page.get_by_label("Submit current annotation")).to_have_count(0, timeout=30_000)


def regions(page: Page) -> Locator:
    return page.locator("[class*=outliner-item__title]")


def submitted(studio: Studio, task: int) -> dict:
    with LabelStudio(studio.url, studio.token) as client:
        (annotation,) = client.task(task)["annotations"]
    return annotation
