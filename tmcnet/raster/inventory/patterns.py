"""File patterns such as `optical/{area}/{tile:d}.png`, and the pairing of files by what their fields say."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tmcnet.errors import InputError, Problem, format_names

Key: TypeAlias = tuple[str, ...]
"""Values of the fields, in the order of the optical pattern."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELD_NAME = re.compile(r"([a-z_][a-z0-9_]*)(:d)?")


@dataclass(frozen=True)
class Pattern:
    """A pattern of file paths.

    Attributes:
        where: The config key it comes from, for messages.
        text: The pattern as written.
        fields: Names of its fields in the order in which they first occur.
        whole: Those of the fields that are whole numbers.
    """

    where: str
    text: str
    fields: tuple[str, ...]
    whole: frozenset[str]

    @classmethod
    def parse(cls, where: str, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            InputError: If it has no field or one that is not written `{name}` or `{name:d}`.
        """
        inner = [match[1] for match in _FIELD.finditer(text)]
        bad = [part for part in inner if not _FIELD_NAME.fullmatch(part)]
        if bad or not inner or "{" in _FIELD.sub("", text) or "}" in _FIELD.sub("", text):
            remedy = "Write fields as `{name}` or `{name:d}`, in small letters, and at least one of them."
            raise InputError(Problem(where, f"`{text}` is not a pattern", remedy))
        names = [part.removesuffix(":d") for part in inner]
        whole = frozenset(part.removesuffix(":d") for part in inner if part.endswith(":d"))
        return cls(where, text, tuple(dict.fromkeys(names)), whole)

    def find(self, root: Path) -> dict[Key, Path]:
        """All files of the pattern below `root`, by the values of its fields (in its own order).

        Raises:
            InputError: If two files have the same values, such as `02.png` and `2.png`.
        """
        found: dict[Key, Path] = {}
        doubled = []
        regex = re.compile(self._regex())
        # Path.glob refuses absolute patterns
        for name in sorted(glob.glob(self._glob(), root_dir=root)):  # noqa: PTH207
            match = regex.fullmatch(name)
            key = self._key(match) if match else None
            if key is None:
                continue
            if key in found:
                doubled.append(f"{found[key].relative_to(root)} and {name}")
            found.setdefault(key, root / name)
        if doubled:
            what = f"finds two files for the same name {len(doubled)} times: {format_names(doubled)}"
            raise InputError(Problem(self.where, what, "Remove one of each, or make the pattern more exact."))
        return found

    def _glob(self) -> str:
        literals = _FIELD.sub("\0", self.text).split("\0")
        return "*".join(glob.escape(part) for part in literals)

    def _regex(self) -> str:
        """Every occurrence of a field is a group of its own; `_key` asks whether they agree."""
        literals = _FIELD.sub("\0", self.text).split("\0")
        groups = [r"(\d+)" if match[1].endswith(":d") else "([^/]+)" for match in _FIELD.finditer(self.text)]
        return re.escape(literals[0]) + "".join(
            group + re.escape(part) for group, part in zip(groups, literals[1:], strict=True)
        )

    def _key(self, match: re.Match[str]) -> Key | None:
        values: dict[str, str] = {}
        for part, raw in zip(_FIELD.findall(self.text), match.groups(), strict=True):
            name = part.removesuffix(":d")
            value = str(int(raw)) if name in self.whole and raw.isdigit() else raw
            if values.setdefault(name, value) != value:
                return None
        return tuple(values[name] for name in self.fields)


def find_pairs(patterns: Mapping[str, Pattern], root: Path) -> dict[Key, dict[str, Path]]:
    """Files of several kinds, paired by the values of their fields and by nothing else.

    Args:
        patterns: The patterns by kind: `optical` first, whose order of fields counts.
        root: Folder below which relative patterns look.

    Returns:
        For every combination of values the files found, by kind; some kinds may lack.

    Raises:
        InputError: If patterns differ in their fields, find nothing, or find doubles.
    """
    fields = patterns["optical"].fields
    problems = []
    found: dict[str, dict[Key, Path]] = {}
    for kind, pattern in patterns.items():
        if set(pattern.fields) != set(fields) or pattern.whole != patterns["optical"].whole:
            what = f"`{pattern.text}` has other fields than `{patterns['optical'].text}`"
            problems.append(
                Problem(pattern.where, what, "Use the same fields, with or without `:d`, in all patterns.")
            )
            continue
        try:
            files = pattern.find(root)
        except InputError as error:
            problems.extend(error.problems)
            continue
        if not files:
            folder = Path(root).resolve()
            remedy = "Check `data_root` and the pattern" + (
                "." if folder.is_dir() else "; that folder does not exist."
            )
            problems.append(Problem(pattern.where, f"`{pattern.text}` matches no file below {folder}", remedy))
        order = [pattern.fields.index(name) for name in fields]
        found[kind] = {tuple(key[i] for i in order): path for key, path in files.items()}
    if problems:
        raise InputError(problems)
    keys = sorted(set().union(*found.values()))
    return {key: {kind: files[key] for kind, files in found.items() if key in files} for key in keys}
