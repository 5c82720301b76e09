"""What is needed to tell later which code and which data a result came from."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

import tmcnet


def provenance(results: Path) -> dict[str, str]:
    """Versions and hashes behind the results; `unknown` where there is no git repository."""
    return {
        "version": tmcnet.__version__,
        "git_commit": _git("rev-parse", "HEAD") or "unknown",
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "manifest_sha256": _sha256(results / "splits" / "manifest.json"),
        "inventory_sha256": _sha256(results / "inventory.json"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"
