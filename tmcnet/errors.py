"""The errors a user can mend, told in one message that names file, field and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave.

    Attributes:
        where: The file, config key or tile concerned.
        what: What was found there.
        remedy: What the user can do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy}"


class InputError(Exception):
    """Raised when the input or the config must be mended by the user.

    Carries every problem found, so that one run shows them all.
    """

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))


class TrainingError(Exception):
    """Raised when training cannot go on: a loss that is not finite, a start that loads nothing."""
