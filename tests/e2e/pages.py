"""A page of the documentation, as somebody who follows it: what it has them run, and what it says is printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"!\[[^\]]*\]\(pictures/([\w-]+)\.webp\)")
_BORDER = "│ \t"


@dataclass(frozen=True)
class Step:
    """A block to run, and what it prints. language: "sh" or "python". printed: the start of lines; ... is anything."""

    language: str
    code: str
    printed: tuple[str, ...]


class Page:
    """A page of Markdown."""

    def __init__(self, file: Path) -> None:
        self._text = file.read_text(encoding="utf-8")
        self.pictures = _PICTURE.findall(self._text)

    def steps(self) -> list[Step]:
        """All blocks, in the order of the page. Raises ValueError at one that is neither run nor printed."""
        steps: list[Step] = []
        for language, body in _BLOCK.findall(self._text):
            if language in ("sh", "python"):
                steps.append(Step(language, body, ()))
            elif language == "text" and steps:
                last = steps.pop()
                steps.append(Step(last.language, last.code, tuple(body.splitlines())))
            else:
                raise ValueError(f"Nobody knows what to do with this block: {body}")
        return steps

    def says(self, words: str) -> str:
        """The words, which have to stand in the page as a button or a quotation does."""
        plain = " ".join(self._text.split())
        if f"`{words}`" not in plain and f"*{words}*" not in plain:
            raise AssertionError(f"The page doesn't say {words!r}.")
        return words


def missing(promised: tuple[str, ...], printed: str) -> list[str]:
    """The promised lines that no printed line begins with, borders aside, in this order."""
    lines = iter([line.strip(_BORDER) for line in printed.splitlines()])
    return [line for line in promised if not any(_pattern(line).match(said) for said in lines)]


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part.strip()) for part in line.split("...")).replace(r"\ ", r"\s+"))
