"""Stops from outside: a scheduler sends a signal shortly before it ends a job, in time to save the state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM: time limit, cancellation, pre-emption. SIGUSR1: an earlier warning, as of `sbatch --signal=USR1@120`."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Note the signals that ask this process to end, instead of ending at once.

    Outside the main thread, where Python allows no handlers, nothing is noted.

    Yields:
        A function that returns the name of the first such signal so far, or an empty string.
    """
    found: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - called by Python
        found.append(signal.Signals(number).name)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in SIGNALS} if main else {}
    try:
        yield lambda: found[0] if found else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:  # noqa: ARG001 - the `worker_init_fn` of a loader
    """Let a process that builds batches go on: signals for a whole job also reach it, and the step still needs it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
