"""How far a job on a large scene has come, for its log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tmcnet.raster.io.rasters import Box

Values = TypeVar("Values")

PAUSE = 10.0
"""Least seconds between two lines on the same step."""


def say(line: str) -> None:
    """Write a line to the log."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say how long a step took, once it is done."""
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def teller(what: str) -> Callable[[str], None]:
    """A function that takes how much of a step is done and says it, once every few seconds at most.

    Args:
        what: What is being done, in words.
    """
    said = time.monotonic()

    def tell(done: str) -> None:
        nonlocal said
        if time.monotonic() - said >= PAUSE:
            said = time.monotonic()
            say(f"{what}: {done}")

    return tell


def watched(parts: Iterable[tuple[Box, Values]], pixels: int, what: str) -> Iterator[tuple[Box, Values]]:
    """Hand on the blocks of a raster; every few seconds say how much of it is done.

    Args:
        parts: Windows, and what belongs to them.
        pixels: Pixels of the whole raster.
        what: What is being done, in words.
    """
    tell, done = teller(what), 0
    for box, values in parts:
        yield box, values
        done += box[2] * box[3]
        tell(f"{done / pixels:.0%}")
