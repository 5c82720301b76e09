"""`python -m tmcnet.tracking send results`: send the runs that MLflow does not hold yet."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tmcnet.errors import InputError
from tmcnet.tracking import send


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 if runs are pending or the folder cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tmcnet.tracking", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("send", help="send runs that MLflow does not hold yet")
    command.add_argument("results", type=Path, help="a results folder of the workflow")
    try:
        counts = Counter(row.status.split(":")[0] for row in send(parser.parse_args(arguments).results))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    return int("pending" in counts)


if __name__ == "__main__":
    sys.exit(main())
