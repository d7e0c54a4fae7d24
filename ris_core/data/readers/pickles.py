"""Pickles of plain data, such as Python 2 wrote them. Whatever a file names is refused, so nothing in it can run."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from ris_core.errors import DatasetError

# What bytes that aren't a pickle, or half of one, make the standard library raise; it has no common base.
_BROKEN = (pickle.PickleError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError, MemoryError)


def read_plain_pickle(path: Path) -> Any:
    """The lists, dicts, texts, numbers, truth values and None that a pickle of Python 2 or 3 holds.

    Python 2's byte strings are read as Latin-1, which never fails and leaves ASCII as it is. No class and no function
    is admitted, numpy's included: the published files need none.

    Raises DatasetError if the file is damaged, or asks for anything but plain data.
    """
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin1").load()
        except _BROKEN as error:
            raise DatasetError(
                f"{path} isn't a pickle of plain data ({error}). Download it again from a source that you trust."
            ) from None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
