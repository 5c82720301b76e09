"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tmcnet.errors import InputError, Problem


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: to a name beside it, then renamed.

    Raises:
        InputError: If the file cannot be written (disk full, no permission).
    """
    target = Path(path)
    draft: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    except OSError as error:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
        raise unwritable(path, str(error.strerror)) from None


def unwritable(path: Path | str, reason: str) -> InputError:
    """What to say of a file that cannot be written."""
    remedy = "Free some space, or let `results_dir` point to a disk and folder that can be written."
    return InputError(Problem(str(path), f"cannot be written ({reason})", remedy))
