"""The documentation as a site: it builds without a warning, its links lead somewhere, nothing comes from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
# What a page fetches by itself, as far as HTML says it: of a tag's attributes those.
LOADED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "link": ("href",),
}
# Of HTML what Markdown and the theme make; another tag is text in angle brackets that nobody sees.
# fmt: off
TAGS = {
    "a", "abbr", "article", "aside", "blockquote", "body", "br", "button", "code", "dd", "del", "details", "div",
    "dl", "dt", "em", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header",
    "hr", "html", "img", "input", "kbd", "label", "li", "link", "main", "meta", "nav", "ol", "p", "path", "picture",
    "pre", "script", "source", "span", "strong", "style", "sub", "summary", "sup", "svg", "table", "tbody", "td",
    "th", "thead", "title", "tr", "ul",
}
# fmt: on
# Tags of <link> that name something without fetching it.
NAMES = {"canonical", "next", "prev", "alternate"}


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)


@dataclass
class Page(HTMLParser):
    """A built page. links: what its reader can follow. loaded: what a browser fetches for it."""

    path: Path
    tags: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given and tag != "meta"}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in NAMES:
            return
        for name in LOADED.get(tag, ()):
            if name in given:
                self.loaded += [part.split()[0] for part in given[name].split(",") if part.strip()]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path.resolve()) for path in site.rglob("*.html")}


def place(site: Path, page: Page, address: str) -> tuple[Path, str]:
    """The file that an address on a page leads to, and the anchor there."""
    parts = urlsplit(address)
    if not parts.path:
        return page.path, unquote(parts.fragment)
    # Only the page for what isn't there has addresses from the root: it may be shown at any depth.
    base = site if parts.path.startswith("/") else page.path.parent
    there = (base / unquote(parts.path).lstrip("/")).resolve()
    return there / "index.html" if there.is_dir() else there, unquote(parts.fragment)


def is_outside(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def test_every_link_leads_to_a_page_and_to_a_place_in_it(site: Path, pages: dict[Path, Page]) -> None:
    broken, followed = [], 0
    for page in pages.values():
        for address in page.links:
            if is_outside(address):
                continue
            there, anchor = place(site, page, address)
            followed += 1
            if not there.is_file():
                broken.append(f"{page.path.relative_to(site.resolve())}: {address} leads nowhere")
            elif anchor and there in pages and anchor not in pages[there].ids:
                broken.append(f"{page.path.relative_to(site.resolve())}: {address} has no such place")
    assert not broken, "\n".join(broken)
    assert followed > 1000


def test_every_picture_script_and_style_is_there(site: Path, pages: dict[Path, Page]) -> None:
    for page in pages.values():
        for address in page.loaded:
            if not address.startswith("data:"):
                there, _ = place(site, page, address)
                assert there.is_file(), f"{page.path.name} loads {address}"
    assert sum(address.endswith("masks.jpg") for page in pages.values() for address in page.loaded) >= 1


def test_nothing_is_loaded_from_outside(site: Path, pages: dict[Path, Page]) -> None:
    outside = [
        f"{page.path.name}: {address}" for page in pages.values() for address in page.loaded if is_outside(address)
    ]
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
        outside += [address for address in map("".join, addresses) if is_outside(address)]
    assert not outside
    # Of the theme's scripts one fetches a library from outside, for diagrams of this kind alone.
    assert not [page.path.name for page in pages.values() if 'class="mermaid"' in page.path.read_text(encoding="utf-8")]


def test_nothing_in_angle_brackets_is_taken_for_a_tag(pages: dict[Path, Page]) -> None:
    for page in pages.values():
        assert page.tags <= TAGS, f"{page.path.name}: write &lt; before {page.tags - TAGS}, or make it code"


def test_every_document_is_a_page(site: Path, pages: dict[Path, Page]) -> None:
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert documents
    for name in [*(str(path.with_suffix(".html")) for path in documents), "index.html", "security.html"]:
        assert (site / name).resolve() in pages, name


def test_sources_that_documents_link_to_are_shown(site: Path, pages: dict[Path, Page]) -> None:
    gate = pages[(site / "source" / "backend" / "learning" / "gate.py.html").resolve()]
    shown = re.sub(r"\s+", " ", gate.text)
    source = (ROOT / "backend" / "learning" / "gate.py").read_text(encoding="utf-8")
    assert re.sub(r"\s+", " ", source).strip() in shown
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "source/backend" not in index
    assert "settings.html" in index


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The documents, to be spoiled, with the sources that they link to."""
    for name in ("docs", "scripts", "weights"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for path in (*ROOT.glob("*.md"), ROOT / "mkdocs.yml", ROOT / "NOTICE", ROOT / "LICENSE"):
        shutil.copy(path, tmp_path)
    for name in ("backend", "ris_core", "tests", "benchmarks", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_whatever_leads_nowhere_stops_the_build_and_so_does_a_page_that_is_in_no_menu(copy: Path) -> None:
    (copy / "docs" / "lonely.md").write_text("# Lonely\n", encoding="utf-8")
    links = ("[a](no-page.md)", "[b](settings.md#no-place)", "![c](no-picture.jpg)", "[d](../README.md#no-start)")
    with (copy / "docs" / "console.md").open("a", encoding="utf-8") as file:
        file.write("\n\n".join(["", *links]))
    done = build(copy, copy / "site")
    assert done.returncode != 0
    for complaint in ("no-page.md", "#no-place", "no-picture.jpg", "#no-start", "lonely.md"):
        assert any("WARNING" in line or "- lonely" in line for line in done.stderr.splitlines() if complaint in line)


def test_a_source_that_isnt_there_is_named_with_the_page_that_links_to_it(copy: Path) -> None:
    with (copy / "docs" / "console.md").open("a", encoding="utf-8") as file:
        file.write("\n[there](../backend/nowhere.py)\n")
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert "docs/console.md links to backend/nowhere.py" in done.stdout + done.stderr


def items(html: str) -> Iterator[str]:
    yield from re.findall(r"<li>([^<]+)</li>", html)


def test_pages_read_as_in_the_repository(copy: Path) -> None:
    text = (
        "# Page\nA sentence:\n- one\n  and more\n- two\n\nSteps:\n1. first\n2. second\n"
        "```\nsaid:\n- kept [link](../README.md)\n```\n- third\n\n"
        '<img src="../docs/masks.jpg" alt="masks">\n'
    )
    (copy / "docs" / "console.md").write_text(text, encoding="utf-8")
    assert build(copy, copy / "site").returncode == 0
    html = (copy / "site" / "console.html").read_text(encoding="utf-8")
    assert [item.split("\n")[0] for item in items(html)] == ["one", "two", "first", "second", "third"]
    assert "said:\n- kept [link](../README.md)" in re.sub(r"<[^>]+>", "", html)
    assert 'src="masks.jpg"' in html
