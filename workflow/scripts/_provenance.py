"""Provenance: versions and hashes of the code and data behind the results."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

import tmcnet
from tmcnet.hashing import file_digest

_CODE = Path(__file__).parent


def provenance(results: Path, records: Iterable[str]) -> dict[str, str]:
    """Collect versions and hashes behind the results; `unknown` if there is no git repository.

    Args:
        results: The results folder.
        records: DVC's records of the raw data (`data.dvc`); none if they are not under DVC.
    """
    paths = [Path(record) for record in records]
    uncommitted = _output(_CODE, "git", "status", "--porcelain", "--untracked-files=no")
    uncommitted += "".join(_output(path.parent, "git", "status", "--porcelain", path.name) for path in paths)
    return {
        "version": tmcnet.__version__,
        "git_commit": _output(_CODE, "git", "rev-parse", "HEAD").strip() or "unknown",
        "git_dirty": str(bool(uncommitted)).lower(),
        **data_version(paths),
        "manifest_sha256": _sha256(results / "splits" / "manifest.json"),
        "inventory_sha256": _sha256(results / "inventory.json"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def data_version(records: list[Path]) -> dict[str, str]:
    """Read the version of the raw data from DVC.

    Args:
        records: DVC's records, files that end in `.dvc`.

    Returns:
        `data_version`: DVC's hashes of the data, or `not under DVC`. Under DVC also `data_record`, the paths of the
        records, and `data_dirty`: `true` if files have changed since `dvc add`, `unknown` if DVC fails.
    """
    if not records:
        return {"data_version": "not under DVC"}
    outs = [out for record in records for out in (yaml.safe_load(record.read_text()) or {}).get("outs", [])]
    hashes = [str(out.get(out.get("hash", "md5"), "unknown")) for out in outs]
    changed = [_changed(record) for record in records]
    return {
        "data_record": " ".join(map(str, records)),
        "data_version": " ".join(hashes),
        "data_dirty": "true" if "true" in changed else "unknown" if "unknown" in changed else "false",
    }


def _changed(record: Path) -> str:
    """Whether files have changed since `dvc add`. It is quick, because DVC hashes only files with a new time."""
    status = _output(record.parent, sys.executable, "-m", "dvc", "status", "--json", record.name)
    try:
        return str(bool(json.loads(status))).lower()
    except json.JSONDecodeError:
        return "unknown"


def _output(folder: Path, *command: str) -> str:
    """Standard output of a command run in a folder; empty if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _sha256(path: Path) -> str:
    return file_digest(path) if path.is_file() else "unknown"
