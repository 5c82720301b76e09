"""What workflows need of the file system: locks, space, the right to write, files without a time in the future."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shlex
import shutil
import socket
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tmcnet.errors import InputError, Problem

MAX_FREE_WHEN_FULL = 2**16
"""Bytes that a full disk has left at most, since files are written in pieces."""
MAX_AHEAD_SECONDS = 10
"""By how much the clocks of machines that write the user's files may differ."""
_NO_INPUTS = {".state", "mlartifacts", "logs", "benchmarks", "seed"}
"""Folders whose files are no inputs of jobs for Snakemake; nor are tiles, but their tables are."""


def full_disk(folders: Iterable[Path], error: BaseException | None = None) -> str:
    """Say which disk is full, of those of some existing folders; empty if none is.

    The disk with the least space counts as full if an error says that one is.
    """
    free = {folder: shutil.disk_usage(folder).free for folder in folders}
    fullest = min(free, key=lambda folder: free[folder])
    if getattr(error, "errno", None) != errno.ENOSPC and free[fullest] > MAX_FREE_WHEN_FULL:
        return ""
    return f"the disk of {fullest.absolute()} is full ({free[fullest] / 2**20:.1f} MiB free)"


def require_writable(folder: Path, where: str, remedy: str, *, inside: bool = True) -> None:
    """Make sure that there is space in a folder, and that this user may write to it.

    If it does not exist, the nearest one above it counts. With `inside` the folders in it are looked at as well, two
    levels down. `where` and `remedy` are for the message.

    Raises:
        InputError: If the disk is full, or one of them is not writable, as after a run of another user or in a
            container.
    """
    top = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    folders = [top, *top.glob("*/"), *top.glob("*/*/")] if inside and top == folder else [top]
    refused = [path for path in folders if not path.is_symlink() and not os.access(path, os.W_OK | os.X_OK)]
    if full := full_disk([top]):
        raise InputError(Problem(f"{where} {top}", full, remedy))
    if refused and top.is_dir():
        owner = refused[0].stat().st_uid
        what = "cannot be written" + (f"; it belongs to user {_name(owner)}" if owner != os.getuid() else "")
        raise InputError(Problem(f"{where} {refused[0]}", what, remedy))


def _name(user: int) -> str:
    """Login name of a user; its number in containers that do not know it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def correct_times(made: Iterable[Path], given: Iterable[Path]) -> None:
    """Give made files with a time in the future the present time, and refuse given ones.

    Made files are those in folders that the workflow made, given ones those of the user. The clock may have been set
    back. Snakemake fails every job with an input that is newer than its output. A new time repeats nothing, because
    contents decide.

    Raises:
        InputError: If given files have a time in the future.
    """
    now = time.time()
    for folder, inner, names in (step for root in made for step in os.walk(root)):
        tables_only = Path(folder).name == "tiles"
        inner[:] = [name for name in inner if name not in _NO_INPUTS and (not tables_only or name == "index")]
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):  # not writable, or gone: Snakemake says so where it matters
                if path.stat().st_mtime > now:
                    os.utime(path)
    times = ((path, _modified(path)) for path in given)
    if ahead := [(path, modified) for path, modified in times if modified > now + MAX_AHEAD_SECONDS]:
        path, modified = ahead[0]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))
        others = f", and {len(ahead) - 1} more files" if len(ahead) > 1 else ""
        what = f"has a time in the future ({when}){others}, with which Snakemake would fail"
        remedy = f"Check the clock, or give the files the present time: touch {shlex.quote(str(path))}."
        raise InputError(Problem(str(path), what, remedy))


def _modified(path: Path) -> float:
    """Time of the last change of a file in seconds; 0 for folders and remote rasters."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0.0
    return found.st_mtime if stat.S_ISREG(found.st_mode) else 0.0


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
