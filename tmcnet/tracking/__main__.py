"""`python -m tmcnet.tracking`: send the runs that MLflow does not hold yet, or open the MLflow UI on them."""

import argparse
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tmcnet.errors import InputError, Problem
from tmcnet.tracking import send

_PORT = 5000
"""Port of the UI, to which the links in `tracking.json` lead."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 if runs are pending or the folder cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tmcnet.tracking", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for work, text in ((_send, "send runs that MLflow does not hold yet"), (_open, "open the MLflow UI on the runs")):
        command = commands.add_parser(work.__name__.removeprefix("_"), help=text)
        command.add_argument("results", type=Path, help="a results folder of the workflow")
        command.set_defaults(run=work)
    chosen = parser.parse_args(arguments)
    try:
        run: Callable[[Path], int] = chosen.run
        return run(chosen.results)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1


def _send(results: Path) -> int:
    counts = Counter(row.status.split(":")[0] for row in send(results))
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    return int("pending" in counts)


def _open(results: Path) -> int:
    """Become the MLflow server of a results folder, which would start with an empty database where there is none."""
    if not (database := results / "mlflow.db").is_file():
        remedy = "Name the results folder (`make mlflow RESULTS=FOLDER`); with `tracking.uri`, open that address."
        raise InputError(Problem(str(database), "does not exist", remedy))
    try:
        socket.create_server(("127.0.0.1", _PORT)).close()
    except OSError as error:
        what = f"cannot be used ({error.strerror}), perhaps because the UI of another results folder is open"
        raise InputError(Problem(f"port {_PORT}", what, "End that program first.")) from None
    stores = ("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(results / "mlartifacts"))
    os.execlp("mlflow", "mlflow", "server", "--host", "127.0.0.1", "--port", str(_PORT), *stores)


if __name__ == "__main__":
    sys.exit(main())
