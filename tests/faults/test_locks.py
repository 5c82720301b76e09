"""The lock of a killed workflow is removed; that of a living one, or of another machine, stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOLD = """
import sys, time
from pathlib import Path
from tmcnet.filesystem import hold_workflow_lock
print(hold_workflow_lock(Path(sys.argv[1]), clear=sys.argv[2] == "main"), flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "locks").mkdir()
    return tmp_path


def hold(folder: Path, kind: str, seconds: float) -> tuple[subprocess.Popen[str], str]:
    """A process of a workflow, and the hint that it got."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), kind, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def lock(folder: Path) -> Path:
    path = folder / "locks" / "0.input.lock"
    path.write_text("results/a\n")
    return path


def test_the_lock_of_a_killed_workflow_is_removed(folder: Path) -> None:
    killed, _ = hold(folder, "main", 60)
    path = lock(folder)
    killed.kill()
    killed.wait()
    _, hint = hold(folder, "main", 0)
    assert (path.exists(), hint) == (False, "")


@pytest.mark.parametrize("kind", ["main", "job"])
def test_the_lock_of_a_living_one_stays(folder: Path, kind: str) -> None:
    first, _ = hold(folder, "main", 0)
    first.wait()
    living, _ = hold(folder, kind, 60)
    path = lock(folder)
    _, hint = hold(folder, "main", 0)
    living.kill()
    living.wait()
    assert path.exists()
    assert hint.startswith("Another workflow, or a job of a killed one, is still running in this folder")


def test_the_lock_of_another_machine_stays(folder: Path) -> None:
    (folder / "tmcnet.lock").write_text("elsewhere\n")
    path = lock(folder)
    _, hint = hold(folder, "main", 0)
    assert path.exists()
    assert hint == (
        "The lock is of a workflow on elsewhere. If none runs there any more, add --unlock to the command."
    )


def test_a_lock_that_nobody_noted_stays(folder: Path) -> None:
    path = lock(folder)
    hold(folder, "main", 0)[0].wait()
    assert path.exists()


def test_one_workflow_writes_to_a_results_folder_with_its_jobs(tmp_path: Path) -> None:
    ask = "import sys, time; from pathlib import Path; from tmcnet.filesystem import hold_results_lock as hold; "
    ask += "print(hold(Path(sys.argv[1]), alone=sys.argv[2] == 'main'), flush=True); time.sleep(float(sys.argv[3]))"

    def may_write(kind: str, seconds: float) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", ask, str(tmp_path / "results"), kind, str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return process, process.stdout.readline().strip()

    main, first = may_write("main", 60)
    job, second = may_write("job", 60)
    assert (first, second, may_write("main", 0)[1]) == ("True", "True", "False")
    main.kill()
    main.wait()
    assert may_write("main", 0)[1] == "False", "a job of the killed workflow is still writing"
    job.kill()
    job.wait()
    assert may_write("main", 0)[1] == "True"


NO_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-fowner", "--inh-caps=-dac_override,-fowner")
"""Runs a command of root without the right to write everywhere."""


def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    ask = "import sys; from pathlib import Path; from tmcnet.filesystem import require_writable as ask; "
    ask += "ask(Path(sys.argv[1]), 'results_dir', 'Choose another.')"
    inner = tmp_path / "results" / "finetune" / "a"
    inner.mkdir(parents=True)
    before = NO_RIGHTS if os.getuid() == 0 else ()
    if before and (not shutil.which("setpriv") or subprocess.run([*before, "true"], capture_output=True).returncode):
        pytest.skip("this machine cannot drop the rights of root")

    def said(folder: Path) -> str:
        done = subprocess.run([*before, sys.executable, "-c", ask, str(folder)], capture_output=True, text=True)
        return done.stderr

    assert said(tmp_path / "results" / "new" / "newer") == said(tmp_path / "results") == ""
    for refused, asked in ((inner, tmp_path / "results"), (inner.parent, inner.parent / "new")):
        refused.chmod(0o555)
        assert f"results_dir {refused}: cannot be written. Choose another." in said(asked)
