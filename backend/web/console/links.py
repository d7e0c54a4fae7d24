"""Links from page to page, relative: they lead on whatever path a proxy puts before ours."""

from posixpath import dirname, relpath
from typing import Any

from flask import request, url_for


def link(endpoint: str, **values: Any) -> str:
    """The way from the page that is asked for to another one of the console."""
    path, question, query = url_for(f"console.{endpoint}", **values).partition("?")
    return f"{relative(request.script_root + request.path, path)}{question}{query}"


def relative(current: str, target: str) -> str:
    """From one path to another, such as `../b` from /console/a/x to /console/b."""
    start = current if current.endswith("/") else dirname(current)
    way = relpath(target, start or "/")
    return f"{way}/" if target.endswith("/") and not way.endswith("/") else way
