"""What every script does around its one call: keep the log, and turn a mistake in the input into one message."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tmcnet.errors import InputError, TrainingError


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Send all that the job prints to its log and end it with a clear message when it fails.

    Snakemake shows the log of a failed job, so nothing is printed twice. A traceback is kept only for
    what is not the user's to mend.
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
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _stop(f"The disk is full ({error.filename}). Free some space and start again: finished steps are kept.")
        except Exception:
            traceback.print_exc()
            _stop("This is a fault of the program, not of your input. Please report it with the lines above.")


def _stop(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(1)
