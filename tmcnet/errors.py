"""Errors that a user can fix: one message names file, field and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_NAMES = 10
"""Names shown in one message; the rest is counted."""


@dataclass(frozen=True)
class Problem:
    """One error in the user's input.

    Attributes:
        where: The file, config key or tile concerned.
        what: What is wrong there.
        remedy: What the user can do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy}"


class InputError(Exception):
    """Raised when the user must fix the input or the config.

    Carries every problem found, so that one run shows them all.
    """

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


@contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Add the problems of an `InputError` from inside to others, so that what comes next can add its own."""
    try:
        yield
    except InputError as error:
        problems += error.problems


class TrainingError(Exception):
    """Raised when training cannot go on: a loss that is not finite, a start that loads nothing."""


class StoppedError(Exception):
    """Raised when a signal, as of a scheduler, ended a training whose state is saved: the same command resumes it."""


_SECRET = re.compile(r"(?<=//)[^/?#\s]*@")


def hide_secrets(text: str) -> str:
    """Remove user names and passwords from the addresses in a text, which may be shown or recorded.

    Example:
        >>> hide_secrets("https://me:word@host/path")
        'https://host/path'
    """
    return _SECRET.sub("", text)


def format_names(names: Iterable[str]) -> str:
    """The first names in sorted order, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - MAX_NAMES
    return ", ".join(ordered[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
