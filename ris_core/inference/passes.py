"""Items through a model: those of one shape together, as many as memory holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch

from ris_core.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")
Shape = TypeVar("Shape", bound=Hashable)


def grouped(
    items: Sequence[Item],
    shape: Callable[[Item], Shape],
    size: Callable[[Shape], int],
    run: Callable[[Sequence[Item]], list[Result]],
) -> list[Result]:
    """`run` over items of one shape, say of one canvas, at most its `size` of them together -> in their order."""
    groups: dict[Shape, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        groups[shape(item)].append(number)
    results: dict[int, Result] = {}
    for shared, numbers in groups.items():
        batches = in_batches([items[number] for number in numbers], size(shared), run)
        results.update(zip(numbers, batches, strict=True))
    return [results[number] for number in range(len(items))]


def in_batches(items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], list[Result]]) -> Iterator[Result]:
    """`run` over at most `size` items together, and half as many whenever memory runs out."""
    start = 0
    while start < len(items):
        try:
            results = run(items[start : start + size])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise OutOfMemory(
                    "Memory ran out on a single photo or prompt. Use a smaller model or side, or a larger machine."
                ) from None
            size = max(1, min(size, len(items) - start) // 2)
            continue
        yield from results
        start += size


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the GPU or of the machine."""
    # On the CPU torch has no exception of its own for this.
    return isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemory) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
