"""Relative links lead where absolute ones would, as a browser reads them."""

from __future__ import annotations

from urllib.parse import urljoin

from hypothesis import given
from hypothesis import strategies as st

from backend.web.console.links import relative

PATHS = st.lists(st.text("abc-1", min_size=1, max_size=3), max_size=4).flatmap(
    lambda parts: st.sampled_from(["", "/"]).map(lambda end: "/" + "/".join(parts) + (end if parts else ""))
)


@given(PATHS, PATHS)
def test_a_browser_comes_to_the_target(current: str, target: str) -> None:
    assert urljoin(f"http://host{current}", relative(current, target)) == f"http://host{target}"
    behind = urljoin(f"http://host/proxy/path{current}", relative(current, target))
    assert behind == f"http://host/proxy/path{target}"
