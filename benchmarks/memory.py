"""How much memory a process took."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> float:
    """Most memory that this process ever held, in MiB (Linux).

    `resource.getrusage` would start from the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
