"""What the log of a job says that was ended from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
JOB = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {scripts!r})
from _job import logged
from tmcnet.errors import InputError, Problem, StoppedError
config = {{"results_dir": {results!r}}}
job = SimpleNamespace(log=[{log!r}], rule="some_rule", resources={resources}, config=config)
with logged(job):
    print("at work", flush=True)
    {work}
"""


def script(log: Path, work: str, memory: int = 8000, runtime: int = 60) -> str:
    resources = {"mem_mb": memory, "runtime": runtime}
    results = str(log.parent / "results")
    return JOB.format(scripts=str(SCRIPTS), log=str(log), work=work, resources=resources, results=results)


def start(log: Path, work: str, memory: int = 8000, runtime: int = 60, slurm: bool = True) -> subprocess.Popen[bytes]:
    """Start a script as Snakemake does, and wait until it works."""
    text = script(log, work, memory, runtime)
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"} | (
        {"SLURM_JOB_ID": "1"} if slurm else {}
    )
    job = subprocess.Popen([sys.executable, "-c", text], env=environment)
    wait_for(log, "at work")
    return job


def wait_for(log: Path, text: str) -> str:
    for _ in range(600):
        if log.exists() and text in log.read_text():
            return log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{text!r} is not in the log: {log.read_text()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_above_its_time_is_explained(tmp_path: Path, number: int) -> None:
    log = tmp_path / "log"
    job = start(log, "time.sleep(60)", runtime=-1)  # over from the start
    job.send_signal(number)
    job.wait()
    line = "minutes: its time limit. A retry (`--retries`) gets more by itself; or ask for more: --set-resources some"
    assert line in wait_for(log, "ended from outside")


def test_a_job_near_its_memory_says_so_before_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = start(log, "kept = bytearray(200_000_000); time.sleep(60)", memory=210)
    wait_for(log, "of 210 MB; if it is ended now, it needs more: --set-resources some_rule:mem_mb=420")
    job.kill()
    job.wait()
    assert "of 210 MB: out of memory. A retry" in wait_for(log, "ended from outside")


def test_without_a_scheduler_both_reasons_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = start(log, "time.sleep(60)", memory=1, slurm=False)
    job.kill()
    job.wait()
    text = wait_for(log, "ended from outside")
    assert "MB: cancelled, or killed because the machine ran out of memory" in text and "uses" not in text


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("pass", ""),
        ("raise InputError(Problem('a.tif', 'is empty', 'Give another.'))", "a.tif: is empty. Give another."),
        ("raise StoppedError('SIGTERM after step 3; the state is saved')", "is saved. A retry goes on from there."),
    ],
)
def test_a_job_that_speaks_is_not_explained_again(tmp_path: Path, work: str, said: str) -> None:
    log = tmp_path / "log"
    code = start(log, work).wait()
    assert (code != 0) == bool(said) and said in log.read_text()
    if "Stopped" in work:
        wait_for(log, "ended from outside")
    else:
        time.sleep(0.5)
        assert "from outside" not in log.read_text()


def test_a_job_ends_with_the_workflow_that_started_it(tmp_path: Path) -> None:
    """A killed Snakemake may be started again with other settings, and the job would write over its results."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", script(log, "time.sleep(60)")]
    workflow = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"])
    wait_for(log, "at work")
    ask = "import sys; from pathlib import Path; from tmcnet.filesystem import hold_results_lock as hold; "
    ask += "print(hold(Path(sys.argv[1]), alone=True))"

    def may_start() -> bool:
        asked = [sys.executable, "-c", ask, str(tmp_path / "results")]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "True\n"

    assert not may_start(), "the job is writing"
    workflow.kill()
    workflow.wait()
    wait_for(log, "Snakemake, which started the job, was killed: the job ends, too.")
    wait_for(log, "ended from outside")
    assert may_start()
