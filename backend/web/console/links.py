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
    way = relpath(dirname(target) or "/", dirname(current) or "/")
    leaf = target.rpartition("/")[2]
    return leaf or "./" if way == "." else f"{way}/{leaf}"
