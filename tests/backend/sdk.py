"""label-studio-sdk, whose pins don't go with ours, asked in the Python that Label Studio is installed for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PYTHON = Path(__file__).parents[2] / ".venv-label-studio" / "bin" / "python"

# One question a line: a name and its arguments. The codec's file is loaded alone: the whole package takes seconds.
_SERVER = """
import importlib.util, json, sys
import numpy as np

package = importlib.util.find_spec("label_studio_sdk").submodule_search_locations[0]
spec = importlib.util.spec_from_file_location("brush", package + "/converter/brush.py")
brush = importlib.util.module_from_spec(spec)
spec.loader.exec_module(brush)

def encode(mask):
    return brush.mask2rle(np.array(mask, dtype=np.uint8) * 255)

def decode(rle):
    return brush.decode_rle(rle).tolist()

def validate(xml, results):
    from label_studio_sdk.label_interface import LabelInterface
    interface = LabelInterface(xml)
    return [interface.validate_prediction({"result": result}, return_errors=True) for result in results]

for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), flush=True)
"""


class Sdk:
    """encode(mask of 0 and 1) -> rle; decode(rle) -> values; validate(xml, results) -> complaints of each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def running() -> Iterator[Sdk]:
    if not PYTHON.exists():
        pytest.skip("Label Studio isn't installed: make .venv-label-studio/.installed")
    process = subprocess.Popen([PYTHON, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield Sdk(process)
        process.stdin.close()  # type: ignore[union-attr]
