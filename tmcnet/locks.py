"""Let one workflow at a time write, and remove the lock that a killed one left in its working directory.

Snakemake locks a working directory with files that have no owner. Here, every process of a workflow holds a shared
lock of the operating system too, which ends with the process, however it ended. Who gets the exclusive lock is alone,
so the files of Snakemake are of a dead process.
"""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path

_held: list[object] = []
"""Open files: a lock ends when its file is closed."""


def hold_workflow_lock(folder: Path, *, clear: bool) -> str:
    """Hold the shared lock until this process ends, and with `clear` remove the lock files of dead processes before.

    A lock of another machine is never removed: not every file system shows its locks to other machines. Returns a
    hint for the user, if the lock files stay because they may have an owner; else nothing.
    """
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / "tmcnet.lock").open("a+")
    except OSError:
        return ""  # Snakemake says that it cannot write here
    _held.append(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    except OSError:
        return ""  # a file system without locks: Snakemake's own stay as they are
    hint = ""
    locks = sorted((folder / "locks").glob("*.lock")) if clear else []
    if clear:
        file.seek(0)
        hosts, here = set(file.read().split()), socket.gethostname()
        if alone and hosts == {here}:
            for lock in locks:
                lock.unlink(missing_ok=True)
        elif locks and not alone:
            hint = "Another workflow, or a job of a killed one, is still running in this folder: wait until it ends."
        elif locks:
            others = ", ".join(sorted(hosts - {here}))
            hint = f"The lock is of a workflow on {others}. If none runs there any more, add --unlock to the command."
        if alone and (hosts <= {here} or not locks):
            file.truncate(0)
            hosts = set()
        if here not in hosts:
            file.write(f"{here}\n")
            file.flush()
    fcntl.flock(file, fcntl.LOCK_SH)
    return hint


def hold_results_lock(results: Path, *, alone: bool) -> bool:
    """Hold a shared lock on a results folder until this process ends: workflows of several folders may share it.

    With `alone` no other process may hold the lock now, as for a workflow that begins; its jobs share it. Returns
    whether this process may write there; also where locks are not possible.
    """
    try:
        (results / ".state").mkdir(parents=True, exist_ok=True)
        file = (results / ".state" / "workflow.lock").open("a")
        _held.append(file)
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here, or no right to write, which the first job says
    return True
