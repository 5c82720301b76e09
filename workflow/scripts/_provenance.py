"""What is needed to tell later which code and which data a result came from."""

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
    """Versions and hashes behind the results; `unknown` where there is no git repository.

    Args:
        results: The results folder.
        records: DVC's records of the raw data (`data.dvc`); none where they are not under DVC.
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
    """What DVC says of the raw data.

    Args:
        records: DVC's records, files that end in `.dvc`.

    Returns:
        `data_version`, DVC's hashes of the data or `not under DVC`. Under DVC also `data_record`, the records' paths,
        and `data_dirty`: `true` where files have changed since `dvc add`, `unknown` where DVC cannot tell.
    """
    if not records:
        return {"data_version": "not under DVC"}
    hashes = [str(out.get(out.get("hash", "md5"), "unknown")) for record in records for out in _outs(record)]
    changed = [_changed(record) for record in records]
    return {
        "data_record": " ".join(map(str, records)),
        "data_version": " ".join(hashes),
        "data_dirty": "true" if "true" in changed else "unknown" if "unknown" in changed else "false",
    }


def _outs(record: Path) -> list[dict[str, object]]:
    content = yaml.safe_load(record.read_text()) or {}
    return list(content.get("outs", []))


def _changed(record: Path) -> str:
    """DVC hashes only the files whose time it does not know, so this is quick."""
    told = _output(record.parent, sys.executable, "-m", "dvc", "status", "--json", record.name)
    try:
        return str(bool(json.loads(told))).lower()
    except json.JSONDecodeError:
        return "unknown"


def _output(folder: Path, *command: str) -> str:
    """What a command prints when run in a folder; nothing where it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout


def _sha256(path: Path) -> str:
    return file_digest(path) if path.is_file() else "unknown"
