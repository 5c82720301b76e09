"""Logging and error messages of all scripts."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tmcnet.config import Config, load
from tmcnet.errors import InputError, StoppedError, TrainingError


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Write all output of the job to its log, and end a failed job with one clear message.

    Snakemake shows the log of a failed job. Only errors of the program get a traceback; errors in the input, a failed
    training and a full disk do not.

    Args:
        log: Path of the log file.
    """
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            yield
        except InputError as error:
            _stop(f"The input has errors:\n{error}")
        except TrainingError as error:
            _stop(f"Training stopped: {error}")
        except StoppedError as error:
            _stop(f"The job was ended from outside: {error}. Start again: it goes on from there.")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _stop(f"The disk is full ({error.filename}). Free some space and start again: finished steps are kept.")
        except Exception:
            traceback.print_exc()
            _stop("This is an error in the program, not in your input. Please report it with the lines above.")


def config(snakemake: Any) -> Config:  # noqa: ANN401 - the job object that Snakemake puts into every script
    """The whole config, for what may change without a rerun of the job, such as names and colours of classes."""
    return load(snakemake.config)


def _stop(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(1)
