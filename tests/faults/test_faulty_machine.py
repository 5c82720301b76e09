"""A full or read-only disk, little memory, a killed worker and a clock that jumps leave no trace in the files.

Needs root for small file systems in memory; without it only the other faults are tried.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.same_results import differences
from tests.faults.test_killed_workflow import SEED, start

FIRST_MIB, GROWTH = 1.0, 1.5
"""Size of the disk in the first attempt, and its growth with each: it gets full in every stage."""


def run(folder: Path, *options: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    process = start(folder, *options, before=before)
    output, _ = process.communicate()
    return process.returncode, output


def mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, output = run(folder)
    assert code == 0, output[-5000:]
    return folder / "results"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose `results` is on a small disk of its own."""
    results = tmp_path / "run" / "results"
    results.mkdir(parents=True)
    if not mount("-t", "tmpfs", "-o", f"size={FIRST_MIB * 2**20:.0f}", "tmpfs", str(results)):
        pytest.skip("this machine allows no mounts")
    yield tmp_path / "run"
    subprocess.run(["umount", "--lazy", str(results)], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk: Path, undisturbed: Path) -> None:
    size, said = FIRST_MIB, 0
    while (found := run(small_disk))[0] != 0:
        assert "error in the program" not in found[1], found[1][-5000:]
        said += "is full (" in found[1] or "No space left" in found[1] or "cannot be written" in found[1]
        print(f"full at {size:.1f} MiB", flush=True)
        size *= GROWTH
        assert size < 2000
        assert mount("-o", f"remount,size={size * 2**20:.0f}", str(small_disk / "results"))
    assert said > 0
    assert differences(undisturbed, small_disk / "results") == []


@pytest.mark.slow
def test_a_read_only_disk(small_disk: Path) -> None:
    assert mount("-o", "remount,ro", str(small_disk / "results"))
    code, output = run(small_disk)
    assert code != 0
    assert "Read-only file system" in output or "not writable" in output or "cannot be written" in output


@pytest.mark.slow
def test_little_memory(tmp_path: Path, undisturbed: Path) -> None:
    code, _ = run(tmp_path / "run", before=("prlimit", f"--as={700 * 2**20}"))
    assert code != 0
    code, output = run(tmp_path / "run")
    assert code == 0, output[-5000:]
    assert differences(undisturbed, tmp_path / "run" / "results") == []


@pytest.mark.slow
def test_killed_workers_and_a_clock_that_jumps(tmp_path: Path, undisturbed: Path) -> None:
    draw, folder = random.Random(SEED), tmp_path / "run"
    for _ in range(3):
        process = start(folder)
        scripts: list[int] = []
        wanted = draw.randint(1, 6)
        while len(scripts) < wanted and process.poll() is None:
            scripts += [pid for pid in running_scripts(process.pid) if pid not in scripts]
            time.sleep(0.05)
        for pid in scripts[-1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert scripts, output[-5000:]
        for path in folder.rglob("*"):
            if path.is_file():
                moment = time.time() + draw.uniform(-1, 1) * 10 * 24 * 3600
                os.utime(path, (moment, moment))
    code, output = run(folder)
    assert code == 0, output[-5000:]
    assert differences(undisturbed, folder / "results") == []


def running_scripts(pid: int) -> list[int]:
    """Processes below a process that run the script of a job."""
    # -ww: pytest may set a width of lines, at which commands would be cut
    table = subprocess.run(
        ["ps", "-e", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [
        (int(child), int(parent), command)
        for child, parent, command in (r.split(maxsplit=2) for r in table.splitlines())
    ]
    scripts, parents = [], [pid]
    while parents:  # numbers of processes start again at 1, so that a child may have a smaller one than its parent
        below = [(child, command) for child, parent, command in rows if parent in parents]
        scripts += [child for child, command in below if "/.snakemake/scripts/" in command]
        parents = [child for child, _ in below]
    return scripts
