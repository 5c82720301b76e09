"""The whole workflow is killed again and again, and ends with the files of an undisturbed run.

`TMCNET_KILLS` is the number of kills, `TMCNET_SEED` the seed of their moments (printed).
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.same_results import differences
from tests.workflow.conftest import ROOT, TINY

KILLS = int(os.environ.get("TMCNET_KILLS", "40"))
SEED = int(os.environ.get("TMCNET_SEED", "1"))
MAX_WAIT_SECONDS = 4.0
"""From the start of a job to the kill, at most."""


def start(folder: Path, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the workflow in a process group of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(TINY)
    command = [str(Path(sys.executable).parent / "snakemake"), "-s", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--configfile", str(ROOT / "config" / "config.yaml"), "tiny.yaml", *options]
    return subprocess.Popen(
        [*before, *command], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def kill_at_random(process: subprocess.Popen[str], draw: random.Random) -> str | None:
    """Kill the group of the workflow a moment after a random job has started.

    Returns:
        The message of the last job that was seen; None if the workflow ended before.
    """
    jobs, seen, lines = draw.choice([1, 1, 2, 2, 3]), [], []
    for line in process.stdout:
        lines.append(line)
        if match := re.match(r"Job \d+: (.+)", line):
            seen.append(match[1])
        if len(seen) >= jobs:
            time.sleep(draw.uniform(0, MAX_WAIT_SECONDS))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.stdout.close()
                process.wait()
                return seen[-1]
    if process.wait() != 0:
        raise AssertionError("".join(lines)[-5000:])
    return None


@pytest.mark.slow
def test_kills_change_no_file(tmp_path: Path) -> None:
    draw, killed, folders = random.Random(SEED), [], [tmp_path / "killed-1"]
    print(f"seed {SEED}, {KILLS} kills")
    while len(killed) < KILLS:
        found = kill_at_random(start(folders[-1]), draw)
        if found is None:  # the workflow is finished: the next kills are in another folder
            folders.append(tmp_path / f"killed-{len(folders) + 1}")
            continue
        killed.append(found)
        print(len(killed), found, flush=True)
    undisturbed = start(tmp_path / "undisturbed")
    output, _ = undisturbed.communicate()
    assert undisturbed.returncode == 0, output[-5000:]
    for folder in folders:
        last = start(folder)
        output, _ = last.communicate()
        assert last.returncode == 0, output[-5000:]
        assert differences(tmp_path / "undisturbed" / "results", folder / "results") == []
    print(f"{len(killed)} kills survived")
