"""A process beside each job, which writes to the log why the job ended if the job could not say so itself.

A scheduler kills a job above its limits. Call: `python -S -E _watch.py RULE MEM_MB RUNTIME_MINUTES`, with the log as
standard output; 0: no limit. A byte on standard input says that the job is done. It starts in milliseconds, as it
imports little.
"""

import os
import select
import signal
import sys
import time

INTERVAL_S = 0.25
NEAR = 0.9
"""Share of a limit from which it counts as the reason for the end."""
START_MINUTES = 0.5
"""Time of a job on a cluster before this process watches it."""
ENDED = "The job was ended from outside"


def used_mb(process: int) -> float:
    """Resident memory of a process and its descendants in MB; 0 if it is gone."""
    try:
        with open(f"/proc/{process}/statm") as file:  # noqa: PTH123 - pathlib costs as much as all the rest
            pages = int(file.read().split()[1])
        children: list[str] = []
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208
            with open(f"/proc/{process}/task/{thread}/children") as file:  # noqa: PTH123
                children += file.read().split()
    except (OSError, IndexError):
        return 0.0
    own = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return own + sum(used_mb(int(child)) for child in children if int(child) != os.getpid())


def step_of(process: int) -> int:
    """The process that Slurm started, which the limits hold for: an ancestor of `process`, or itself."""
    above = process
    while above > 1:
        try:
            with open(f"/proc/{above}/stat") as file:  # noqa: PTH123
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except OSError:
            break
        if name == "slurmstepd":
            return process
        process, above = above, int(rest.split()[1])
    return 0


def reason(rule: str, peak: float, memory: int, minutes: float, runtime: int) -> str:
    """Say what ended the job, as far as its limits explain it, and how to avoid it."""
    if runtime and minutes + START_MINUTES >= NEAR * runtime:
        cause = f"after {minutes:.1f} of {runtime} minutes: its time limit"
        remedy = f"--set-resources {rule}:runtime={2 * runtime}"
    elif memory and peak >= NEAR * memory:
        cause = f"at {peak:.0f} of {memory} MB: out of memory"
        remedy = f"--set-resources {rule}:mem_mb={2 * memory}"
    else:
        return (
            f"{ENDED} after {minutes:.1f} minutes, with at most {peak:.0f} MB: cancelled, or killed because the "
            f"machine ran out of memory. If it was memory, ask for more: --set-resources {rule}:mem_mb=..."
        )
    return f"{ENDED} {cause}. A retry (`--retries`) gets more by itself; or ask for more: {remedy}"


def parent_of(process: int) -> int:
    """The process that started another one; 0 if that has ended."""
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def watch(rule: str, memory: int, runtime: int, parent: int) -> None:
    """Wait until the job ends, and write a line if it has not spoken, or if it comes close to its memory.

    A job whose Snakemake, the process `parent`, was killed is ended: it would later write over the results of a new
    start.
    """
    job, began, peak, warned = os.getppid(), time.monotonic(), 0.0, False
    step = step_of(job) or job
    while os.getppid() == job:
        if select.select([0], [], [], INTERVAL_S)[0]:
            if os.read(0, 1):
                return
            break  # ended without a word
        peak = max(peak, used_mb(step))
        if parent_of(job) != parent and os.getppid() == job:
            parent = parent_of(job)
            print("Snakemake, which started the job, was killed: the job ends, too.", flush=True)
            os.kill(job, signal.SIGTERM)
        if memory and peak >= NEAR * memory and not warned:
            warned = True
            remedy = f"if it is ended now, it needs more: --set-resources {rule}:mem_mb={2 * memory}"
            print(f"The job uses {peak:.0f} of {memory} MB; {remedy}", flush=True)
    print(reason(rule, peak, memory, (time.monotonic() - began) / 60, runtime), flush=True)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):  # meant for the job
        signal.signal(number, signal.SIG_IGN)
    watch(sys.argv[1], *map(int, sys.argv[2:]))
