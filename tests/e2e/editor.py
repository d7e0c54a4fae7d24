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
    # The button goes before Label Studio has what was submitted.
    with page.expect_response(lambda response: "/annotations" in response.url and response.request.method == "POST"):
        page.get_by_label("Submit current annotation").click()
    expect(page.get_by_label("Submit current annotation")).to_have_count(0, timeout=30_000)


def regions(page: Page) -> Locator:
    return page.locator("[class*=outliner-item__title]")


def submitted(studio: Studio, task: int) -> dict:
    with LabelStudio(studio.url, studio.token) as client:
        (annotation,) = client.task(task)["annotations"]
    return annotation


def take(page: Page, tool: str) -> None:
    """A smart tool, "key-point-tool" or "rectangle-tool", from those behind Auto-Detect."""
    page.locator(".lsf-tool_smart").first.hover()
    page.locator(f".lsf-tool_smart[aria-label={tool}]").first.click()
    # Its list lies over the photo as long as the mouse is there.
    page.mouse.move(5, 5)


def on_photo(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where on the page a place in the photo is, given in shares of it."""
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] * x, box["y"] + box["height"] * y


def click_on(page: Page, x: float, y: float, *keys: str) -> list[dict[str, Any]]:
    """Click with keys held down -> the regions that this was answered by."""
    place = on_photo(page, x, y)
    with page.expect_response(lambda response: "interactive-annotating" in response.url, timeout=60_000) as answer:
        for key in keys:
            page.keyboard.down(key)
        page.mouse.click(*place)
        for key in keys:
            page.keyboard.up(key)
    return answered(answer.value.json())


def draw_box(page: Page, left: float, top: float, right: float, bottom: float) -> list[dict[str, Any]]:
    """Drag from corner to corner -> the regions that this was answered by."""
    with page.expect_response(lambda response: "interactive-annotating" in response.url, timeout=60_000) as answer:
        page.mouse.move(*on_photo(page, left, top))
        page.mouse.down()
        page.mouse.move(*on_photo(page, right, bottom), steps=8)
        page.mouse.up()
    return answered(answer.value.json())


def answered(answer: dict[str, Any]) -> list[dict[str, Any]]:
    assert "errors" not in answer, answer
    # The editor takes a moment to put it in.
    return list(answer["data"]["result"])
