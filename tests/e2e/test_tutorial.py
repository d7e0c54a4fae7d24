"""docs/tutorial.md, followed by somebody: its commands are run, and what it has a person click is clicked.

What stands there as printed has to be printed, and what stands there as said by a page has to be said. On the way its
pictures are taken, and the README's loop. With E2E_PICTURES set to a folder they are kept there: `make pictures`.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera import Area, Camera
from editor import click_on, on_photo, regions, switch_on, take
from pages import Page as Document
from pages import Step, missing
from playwright.sync_api import Browser, Locator, Page, expect
from running import Studio, free_ports, wait

from backend.labelstudio.client import LabelStudio
from backend.settings import load

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
TUTORIAL = Document(ROOT / "docs" / "tutorial.md")
# Where the two servers are unless somebody says otherwise, as the page does.
USUAL = {"label_studio": "http://127.0.0.1:8080", "console": "http://127.0.0.1:9090"}
ENVIRONMENTS = (".venv", ".venv-label-studio")
# The list of photos on the left and that of regions on the right leave this to the editor, below its tabs.
VIEW = {"width": 1540, "height": 945}
LIST, PANELS, TABS = 240, 320, 90
EDITOR = Area(LIST, TABS, VIEW["width"] - LIST - PANELS, VIEW["height"] - TABS)
CONSOLE = {"width": 900, "height": 700}
LARGEST = {"still": 150_000, "stills": 1_200_000, "loop": 2_000_000}
# Where the eraser goes, in shares of the photo: the spoon's handle, which looks over the cup's edge.
SPOON = [(0.688, 0.155), (0.715, 0.16), (0.708, 0.195), (0.694, 0.18), (0.688, 0.2), (0.69, 0.23), (0.686, 0.3)]
# Until it has learnt, in ms.
LEARNT = 600_000


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout with all that is installed, but without anything that was kept."""
    folder = tmp_path_factory.mktemp("tutorial") / "ris-studio"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in (".ris", ".git", *ENVIRONMENTS):
            (folder / path.name).symlink_to(path)
    for name in ENVIRONMENTS:
        (folder / name).mkdir()
        for path in (ROOT / name).iterdir():
            if path.name.startswith("."):
                # Installed just now, so that make installs nothing again.
                (folder / name / path.name).touch()
            else:
                (folder / name / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """A terminal's: without settings of ours."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("RIS_", "MAKE", "MFLAGS"))}
    return {**others, "COLUMNS": "100"}


@pytest.fixture(scope="module")
def studio(checkout: Path, environment: dict[str, str]) -> Iterator[Studio]:
    """What the page's first command starts, at ports that are free."""
    home = checkout / ".ris"
    home.mkdir(mode=0o700)
    backend, label_studio, valkey = free_ports(3)
    (home / "ris.env").write_text(
        f"RIS_PORT={backend}\nRIS_LABEL_STUDIO_URL=http://127.0.0.1:{label_studio}\n"
        f"RIS_REDIS_URL=redis://:{secrets.token_urlsafe(16)}@127.0.0.1:{valkey}/0\n"
    )
    start, log = TUTORIAL.steps()[0], checkout.parent / "up.log"
    with log.open("w") as output:
        command = ["bash", "-ec", start.code]
        process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait(process, log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RIS_HOME", str(home))
            settings = load()
        printed = log.read_text().replace(settings.label_studio_url, USUAL["label_studio"])
        assert missing(start.printed, printed.replace(f"http://127.0.0.1:{backend}", USUAL["console"])) == [], printed
        with LabelStudio.from_settings(settings) as client:
            [project] = [row["id"] for row in client.projects()]
        yield Studio(home, settings, project)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(120)
    assert "Stopped. The next start goes on from here." in log.read_text()


@pytest.fixture
def editor(page: Page) -> Page:
    page.set_viewport_size(VIEW)  # type: ignore[arg-type]
    return page


@pytest.fixture
def console(browser: Browser, studio: Studio) -> Iterator[Page]:
    login = {"username": studio.settings.username, "password": studio.settings.secret("password")}
    visit = browser.new_context(http_credentials=login, viewport=CONSOLE)  # type: ignore[arg-type]
    page = visit.new_page()
    page.goto(f"http://127.0.0.1:{studio.settings.port}/console/")
    yield page
    visit.close()


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    return Camera(Path(os.environ.get("E2E_PICTURES", tmp_path)))


def test_the_tutorial_leads_to_a_better_model(
    studio: Studio, editor: Page, console: Page, camera: Camera, checkout: Path, environment: dict[str, str]
) -> None:
    editor.goto(f"{studio.url}/projects/{studio.project}/data")
    type_what_is_there(editor, camera)
    correct_what_is_wrong(editor, camera)
    correct_what_is_not_known(editor)
    learn(console, camera)
    promote(console)
    see_what_was_learnt(editor, camera)
    roll_back_and_promote_again(console)
    for step in TUTORIAL.steps()[1:]:
        printed = run(step, checkout, environment)
        assert missing(step.printed, printed) == [], printed
    pictures_are_small(camera)


def type_what_is_there(page: Page, camera: Camera) -> None:
    choose(page, "chelsea")
    switch_on(page, accepting=True)
    write(page, "the cat")
    expect(page.get_by_text(TUTORIAL.says("the cat: found"))).to_be_visible()
    expect(regions(page)).to_have_count(1)
    still(page, camera, "typed")
    submit(page)


def correct_what_is_wrong(page: Page, camera: Camera) -> None:
    choose(page, "coffee")
    look_at_the_photo(page)
    film(page, camera, "A photo in Label Studio. Type what is there ...", 1200)
    box = page.get_by_placeholder("What are you looking for")
    box.click()
    for letter in "the cup":
        box.press_sequentially(letter)
        film(page, camera, "A photo in Label Studio. Type what is there ...", 110)
    answer(page, box)
    expect(page.get_by_text(TUTORIAL.says("the cup: found"))).to_be_visible()
    look_at_the_photo(page)
    film(page, camera, "... and there is a mask. Half of the cup is missing.", 2200)
    take(page, "key-point-tool")
    for place in ((0.48, 0.62), (0.375, 0.68)):
        film(page, camera, "Ctrl + click: this belongs to it, too.", 800, on_photo(page, *place))
        click_on(page, *place, "Control")
        expect(regions(page)).to_have_count(1)
        film(page, camera, "Ctrl + click: this belongs to it, too.", 1200, on_photo(page, *place))
    erase(page, camera, SPOON)
    film(page, camera, "Erase what isn't of it: the spoon.", 1200)
    still(page, camera, "corrected")
    film(
        page,
        camera,
        "Submit. The model learns from what you changed.",
        2600,
        beside_its_words(page.get_by_test_id("bottombar-submit-button")),
    )
    submit(page)


def correct_what_is_not_known(page: Page) -> None:
    choose(page, "rocket")
    write(page, "the rocket")
    expect(page.get_by_text(TUTORIAL.says("the rocket: not found"))).to_be_visible()
    take(page, "key-point-tool")
    click_on(page, 0.5, 0.5)
    expect(regions(page)).to_have_count(1)
    click_on(page, 0.5, 0.7, "Control")
    expect(regions(page)).to_have_count(1)
    submit(page)


def learn(page: Page, camera: Camera) -> None:
    page.get_by_role("link", name=TUTORIAL.says("Referring segmentation")).click()
    expect(page.get_by_role("heading", name="Referring segmentation")).to_be_visible()
    begun = page.get_by_role("heading", name="Under way").or_(page.get_by_text("trial", exact=True))
    while not begun.first.is_visible():
        page.wait_for_timeout(1000)
        page.reload()
    # From here on the page brings itself up to date.
    expect(page.get_by_text("trial", exact=True)).to_be_visible(timeout=LEARNT)
    expect(page.get_by_role("heading", name="Under way")).to_be_hidden(timeout=60_000)
    expect(page.get_by_text(re.compile(f"kept as a trial.*{TUTORIAL.says('Not yet')}"))).to_be_visible()
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({**CONSOLE, "height": height})  # type: ignore[arg-type]
    camera.still(page, "trial", Area(0, 0, CONSOLE["width"], height))


def promote(page: Page) -> None:
    page.get_by_role("link", name=TUTORIAL.says("Promote")).click()
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_text(TUTORIAL.says("It is in production now."))).to_be_visible()


def see_what_was_learnt(page: Page, camera: Camera) -> None:
    page.get_by_label("Create an annotation").click()
    expect(regions(page)).to_have_count(0)
    write(page, "the rocket")
    expect(page.get_by_text("the rocket: found")).to_be_visible()
    expect(regions(page)).to_have_count(1)
    still(page, camera, "learnt")


def roll_back_and_promote_again(page: Page) -> None:
    page.get_by_role("link", name=TUTORIAL.says("Roll back")).click()
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("The version before serves again.")).to_be_visible()
    promote(page)


def pictures_are_small(camera: Camera) -> None:
    """The page shows those that were taken; they and the loop are quick to load, and the loop is short."""
    loop = camera.loop("loop")
    assert loop.stat().st_size < LARGEST["loop"]
    assert 10 <= camera.seconds <= 18
    sizes = {path.stem: path.stat().st_size for path in camera.stills}
    assert sorted(sizes) == sorted(TUTORIAL.pictures)
    assert max(sizes.values()) < LARGEST["still"]
    assert sum(sizes.values()) < LARGEST["stills"]


def run(step: Step, folder: Path, environment: dict[str, str]) -> str:
    """Run a block in the folder -> what it prints; it must succeed."""
    python = [str(folder / ".venv" / "bin" / "python"), "-c"]
    command = ["bash", "-ec"] if step.language == "sh" else python
    done = subprocess.run(
        [*command, step.code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def choose(page: Page, photo: str) -> None:
    """Click a photo in the list."""
    before = page.url
    page.locator(f"img[src*='{photo}']").first.click()
    page.wait_for_url(lambda url: url != before and "task=" in url)
    number = page.url.rpartition("task=")[2]
    expect(page.locator("[class*=current-task]").first).to_contain_text(number, timeout=60_000)
    expect(page.get_by_placeholder("What are you looking for")).to_be_visible()
    page.wait_for_load_state("networkidle")
    # What came of the photo before fades, and the editor after it.
    expect(page.get_by_text("Annotation saved successfully")).to_have_count(0, timeout=60_000)
    page.wait_for_timeout(2000)


def submit(page: Page) -> None:
    button = page.get_by_test_id("bottombar-submit-button")
    expect(button).to_have_text(TUTORIAL.says("Submit"))
    button.click()
    expect(page.get_by_test_id("bottombar-update-button")).to_be_visible(timeout=60_000)


def write(page: Page, prompt: str) -> None:
    box = page.get_by_placeholder("What are you looking for")
    box.fill(prompt)
    answer(page, box)


def answer(page: Page, box: Locator) -> None:
    """Press Enter, and wait for what the model says."""
    with page.expect_response(lambda response: "interactive-annotating" in response.url, timeout=60_000) as told:
        box.press("Enter")
    assert told.value.ok


def erase(page: Page, camera: Camera, places: list[tuple[float, float]]) -> None:
    """Choose the only region, and draw the eraser along places on the photo."""
    regions(page).first.click()
    page.get_by_label("eraser").click()
    page.mouse.move(*on_photo(page, *places[0]))
    page.mouse.down()
    for place in places:
        page.mouse.move(*on_photo(page, *place), steps=6)
        film(page, camera, "Erase what isn't of it: the spoon.", 350, on_photo(page, *place))
    page.mouse.up()


def look_at_the_photo(page: Page) -> None:
    """Scroll the box for prompts to the top, so that the photo is there whole."""
    page.get_by_placeholder("What are you looking for").evaluate("box => box.scrollIntoView({block: 'start'})")


def still(page: Page, camera: Camera, name: str) -> None:
    page.mouse.move(5, 5)
    look_at_the_photo(page)
    page.wait_for_timeout(500)
    camera.still(page, name, EDITOR)


def film(page: Page, camera: Camera, words: str, duration: int, pointer: tuple[float, float] | None = None) -> None:
    camera.frame(page, EDITOR, words, duration, pointer)


def beside_its_words(thing: Locator) -> tuple[float, float]:
    box = thing.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
