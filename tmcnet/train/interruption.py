"""Stops from outside: a scheduler sends a signal shortly before it ends a job, in time to save the state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM: time limit, cancellation, pre-emption. SIGUSR1: an earlier warning, as of `sbatch --signal=USR1@120`."""


@contextmanager
def stop_requests() -> Iterator[list[str]]:
    """Yield a list that gets the names of signals that ask this process to end, instead of ending at once.

    Outside the main thread, where Python allows no handlers, it stays empty.
    """
    received: list[str] = []
    noted = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    handlers = {n: signal.signal(n, lambda n, _: received.append(signal.Signals(n).name)) for n in noted}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:  # noqa: ARG001 - the `worker_init_fn` of a loader
    """Let a process that builds batches go on: signals for a whole job also reach it, and the step still needs it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
