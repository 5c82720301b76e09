"""Logging and error messages of all scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _watch

from tmcnet.config import Config, load
from tmcnet.errors import InputError, StoppedError, TrainingError
from tmcnet.filesystem import full_disk, hold_results_lock
from tmcnet.hashing import json_digest
from tmcnet.recovery import archive_of, keep, origin_of

_terminal: int | None = None
"""Where errors went before they went to the log of the job."""


@contextmanager
def logged(snakemake: Any) -> Iterator[None]:  # noqa: ANN401 - the job object that Snakemake puts into every script
    """Write all output of the job to its log, and end a failed job with one clear message.

    Snakemake shows the log of a failed job. Only errors of the program get a traceback; errors in the input, a failed
    training and a full disk do not. A job that is killed cannot write why, so that a second process does it.

    Args:
        snakemake: The job.
    """
    # Snakemake's own lock ends with it, and a job may go on after it was killed.
    hold_results_lock(Path(snakemake.config["results_dir"]), alone=False)
    with Path(snakemake.log[0]).open("w") as file:
        global _terminal
        _terminal = os.dup(sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        watcher = _start_watcher(snakemake)
        try:
            yield
        except InputError as error:
            _stop(f"The input has errors:\n{error}")
        except TrainingError as error:
            _stop(f"Training stopped: {error}")
        except StoppedError as error:
            print(f"{error}. A retry goes on from there.", file=sys.stderr, flush=True)
            os._exit(1)  # the watcher writes why
        except Exception as error:
            if full := full_disk_of(error, Path(snakemake.log[0]).parent):
                _stop(f"{full[0].upper()}{full[1:]}. Free some space and start again: finished steps are kept.")
            traceback.print_exc()
            _stop("This is an error in the program, not in your input. Please report it with the lines above.")
        finally:
            watcher.communicate(b".")


def show(text: str) -> None:
    """Print a line to the log, and where Snakemake was started; of jobs on other machines, to the log only."""
    print(text, file=sys.stderr, flush=True)
    if _terminal is not None:
        os.write(_terminal, f"{text}\n".encode())


@contextmanager
def keeping(
    snakemake: Any,  # noqa: ANN401
    results: Path,
    name: str,
    others: Callable[[], Iterable[Path]] = tuple,
) -> Iterator[None]:
    """Keep copies of what the job writes, as `tmcnet.recovery.put_back` needs them.

    Args:
        snakemake: The job.
        results: The results folder, or that of a fold.
        name: Name of the copies.
        others: Finds written files that are not among the outputs of the rule.
    """
    yield
    files = {Path(file) for file in snakemake.output} | set(others())
    keep(archive_of(results, name), origin_of(dict(snakemake.params.items()), snakemake.input), sorted(files))


def _start_watcher(snakemake: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
    """Start the process that writes to the log why the job was killed; only Slurm enforces limits."""
    limits = [snakemake.resources.get(name, 0) for name in ("mem_mb", "runtime")]
    given = limits if "SLURM_JOB_ID" in os.environ else [0, 0]
    command = [sys.executable, "-S", "-E", _watch.__file__, snakemake.rule, *map(str, (*given, os.getppid()))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def full_disk_of(error: BaseException, results: Path) -> str:
    """Say which disk is full, if that is why something failed; libraries hide it behind errors of their own.

    Args:
        error: What failed.
        results: Folder that the job writes to.
    """
    named = getattr(error, "filename", None)
    folders = [Path(named).parent] if isinstance(named, str) else []
    folders += [results, Path(os.environ.get("TMPDIR", "/tmp"))]
    return full_disk(filter(Path.is_dir, folders), error)


def config(snakemake: Any) -> Config:  # noqa: ANN401 - the job object that Snakemake puts into every script
    """The whole config, for what may change without a rerun of the job, such as names and colours of classes."""
    return load(snakemake.config)


def settings_digest(snakemake: Any) -> str:  # noqa: ANN401
    """Hash of the settings of a scene's job, the same for all scenes that are up to date."""
    return json_digest(dict(snakemake.params.items()))


def _stop(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(1)
