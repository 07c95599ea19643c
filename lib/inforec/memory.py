"""Out of memory: told from other errors, and answered by smaller blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Answer = TypeVar("Answer")


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; on the CPU, PyTorch has no class of its own for that."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def in_blocks(function: Callable[[slice], Answer], rows: int, size: int) -> Iterator[Answer]:
    """Yield ``function(block)`` for the slices that cut ``rows`` rows into blocks of ``size``.

    Where a block does not fit in memory, it and those after it are halved, and a warning says so.

    Raises:
        RuntimeError: that of the allocator, where a single row does not fit.
    """
    start, failed = 0, 0
    while start < rows:
        block = slice(start, min(start + size, rows))
        length = block.stop - start
        try:
            answer = function(block)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or length == 1:
                raise
            failed, size = failed or length, length // 2
            continue
        if failed:
            warnings.warn(
                f"out of memory with a block of {failed} rows: going on with {size}, which is "
                "slower and gives the same result",
                RuntimeWarning,
                stacklevel=2,
            )
            failed = 0
        start = block.stop
        yield answer
