"""Peak memory of a process."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> float:
    """Peak resident memory of this process in MiB (Linux).

    Unlike `resource.getrusage`, it does not start from the peak of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
