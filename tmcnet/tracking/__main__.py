"""`python -m tmcnet.tracking send results`: send to MLflow what it has not got yet."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tmcnet.errors import InputError
from tmcnet.tracking import send


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was typed; None takes it from the process.

    Returns:
        0; 1 where runs are still pending or the folder cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m tmcnet.tracking", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("send", help="send runs that MLflow has not got yet")
    command.add_argument("results", type=Path, help="a results folder of the workflow")
    try:
        rows = send(parser.parse_args(arguments).results)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    counts = Counter(row.status.split(":")[0] for row in rows)
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    return int("pending" in counts)


if __name__ == "__main__":
    sys.exit(main())
