"""What mkdocs is told of the pages and files outside docs/ that docs link to, so that one text serves both readers.

In a listing of the repository a link such as ../backend/learning/gate.py opens the file. On the site it has to lead
somewhere as well, and no public address of the repository is known. So what is linked comes with the site: documents
as pages (README.md is the front page), text as a page that shows it, all else as a file. Those pages are in no menu and
in no search: they are for who follows a link. Knows nothing of what any page says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
# Where documents at the root of the repository are on the site.
PLACES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "weights/card.md": "weights/card.md",
}
SOURCE = "source"
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".sh": "bash", "": "text"}

_LINK = re.compile(r'(?P<before>\]\(|\bsrc=")(?P<target>[^)\s"#]+)')
_OUTSIDE = re.compile(r"[a-z][a-z+.-]*:", re.IGNORECASE)
_FENCE = re.compile(r" *(`{3,}|~{3,})")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d+\.) ")
# An item, or a line that goes on with one.
_IN_LIST = re.compile(r" |(?:[-*+]|\d+\.) ")
# Longer than any fence within a file that is shown.
_LONG_FENCE = "`" * 12


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked from docs/, and from what is linked."""
    waiting = [*PLACES, *(f"{DOCS}/{file.src_uri}" for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        if place_of(path) not in files.src_uris:
            files.append(_file(path, config))
        for target in _linked(path) if path.endswith(".md") else ():
            # What is missing from docs/ mkdocs tells by itself.
            if not (ROOT / target).is_file() and not target.startswith(f"{DOCS}/"):
                raise PluginError(f"{path} links to {target}, which isn't a file.")
            if (ROOT / target).is_file() and target not in known:
                known.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page as mkdocs reads it: links lead to where the site has things, and lists and code look as elsewhere."""
    if page.file.src_uri.startswith(f"{SOURCE}/"):
        return markdown
    path = path_of(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _repository_path(path, link["target"])
        if target is None:
            return link[0]
        return link["before"] + relpath(place_of(target), PurePosixPath(page.file.src_uri).parent)

    return "\n".join(_with_blocks_apart(markdown, lambda line: _LINK.sub(moved, line)))


def place_of(path: str) -> str:
    """Where the site has a file of the repository, as mkdocs counts: a page by its Markdown."""
    if path in PLACES:
        return PLACES[path]
    suffix = PurePosixPath(path).suffix
    if suffix in LANGUAGES:
        return f"{SOURCE}/{path}.md"
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") or suffix == ".md" else f"{SOURCE}/{path}"


def path_of(place: str) -> str:
    """The document in the repository that a page of the site is made from."""
    documents = {there: path for path, there in PLACES.items()}
    inside = f"{DOCS}/{place}"
    return documents.get(place, inside if (ROOT / inside).exists() else place)


def _file(path: str, config: MkDocsConfig) -> File:
    source, place = ROOT / path, place_of(path)
    level = InclusionLevel.UNDEFINED if path in PLACES else InclusionLevel.NOT_IN_NAV
    if PurePosixPath(path).suffix not in LANGUAGES:
        return File.generated(config, place, abs_src_path=str(source), inclusion=level)
    language = LANGUAGES[source.suffix]
    text = source.read_text(encoding="utf-8").rstrip("\n")
    shown = f"# {path}\n\n{_LONG_FENCE}{language}\n{text}\n{_LONG_FENCE}\n"
    return File.generated(config, place, content=f"---\nsearch:\n  exclude: true\n---\n{shown}", inclusion=level)


def _linked(path: str) -> Iterator[str]:
    """The files that a document links to, as paths of the repository."""
    for line, is_code in _lines((ROOT / path).read_text(encoding="utf-8")):
        for link in () if is_code else _LINK.finditer(line):
            target = _repository_path(path, link["target"])
            if target is not None:
                yield target


def _repository_path(path: str, target: str) -> str | None:
    """What a link in a document leads to; None for what is elsewhere."""
    if _OUTSIDE.match(target) or target.startswith("/"):
        return None
    return normpath(str(PurePosixPath(path).parent / target))


def _with_blocks_apart(markdown: str, change: Callable[[str], str]) -> Iterator[str]:
    """The lines, changed outside code, with an empty one before lists and code that follow a sentence.

    Markdown's first dialect, which mkdocs reads, asks for those; that of listings of repositories doesn't.
    """
    before, was_code = "", False
    for line, is_code in _lines(markdown):
        begins_list = not is_code and _ITEM.match(line) and (was_code or not _IN_LIST.match(before))
        begins_code = is_code and not was_code and not line.startswith(" ")
        if before.strip() and (begins_list or begins_code):
            yield ""
        yield line if is_code else change(line)
        before, was_code = line, is_code


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """The lines, and of each whether it is within a block of code."""
    fence = ""
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            yield line, True
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        else:
            fence = mark[1] if mark else ""
            yield line, bool(mark)
