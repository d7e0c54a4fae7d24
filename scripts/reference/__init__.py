"""The pages of docs/ that are made from the code and from the benchmarks' results, so that they can't say otherwise.

A module a page, with one function that returns its text. tests/test_reference.py fails when a page in the tree is
another. Knows nothing of the site.
"""

from collections.abc import Mapping
from pathlib import Path

from reference import benchmarks, commands, formats, metrics


def pages(root: Path) -> Mapping[Path, str]:
    """The text of each page that is made, by its path."""
    docs = root / "docs"
    return {
        docs / "commands.md": commands.page(),
        docs / "formats.md": formats.page(),
        docs / "metrics.md": metrics.page((docs / "metrics.md").read_text(encoding="utf-8")),
        docs / "benchmarks.md": benchmarks.page(root / "benchmarks"),
    }
