"""The tile index as the splits see it: sorted by tile, checked, and as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.splits.ground import CIRCLE, COLUMNS, NORTH_UP, Ground, locate
from tmcnet.splits.lists import format_names

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Names: TypeAlias = npt.NDArray[np.object_]

_TEXT = ["tile", "scene", "role"]
_WINDOW = ["row", "col", "height", "width"]
_ALIGNMENT = "alignment_px"
_REMEDY = "Let the tiling stage write the index anew."


@dataclass(frozen=True)
class TileIndex:
    """What the splits need to know of N tiles and K classes; tiles are sorted by name.

    Attributes:
        tiles: N names.
        scene: N numbers of scenes. Tiles without a place in a scene have one of their own each.
        scenes: Names of the scenes by number.
        window: N x 4: row, column, height and width in the scene, in pixels.
        labelled: N; whether any pixel has a label.
        area: N x K labelled pixels of each class. Whole numbers, so that sums do not depend on their order.
        classes: K names.
        field: N values of the column that methods `column` and `given` look at; else None.
        subsets: N label subsets that the source gives, such as `R1;R5`; None unless they are asked for.
        ground: Where the tiles lie on the ground; None where nothing is known.
        misalignment: N residuals of the registration at the tile in pixels, NaN where not known; None unless they are
            asked for.
    """

    tiles: Names
    scene: IntArray
    scenes: list[str]
    window: IntArray
    labelled: BoolArray
    area: npt.NDArray[np.int32]
    classes: list[str]
    field: Names | None
    subsets: Names | None
    ground: Ground | None = None
    misalignment: npt.NDArray[np.float64] | None = None

    def only(self, chosen: BoolArray) -> TileIndex:
        """The chosen ones (N flags) of the tiles; numbers of scenes stay."""
        rows = {name: getattr(self, name) for name in ("tiles", "scene", "window", "labelled", "area")}
        more = {name: getattr(self, name) for name in ("field", "subsets", "misalignment")}
        some = rows | {name: values for name, values in more.items() if values is not None}
        ground = None if self.ground is None else self.ground.only(chosen)
        return replace(self, ground=ground, **{name: values[chosen] for name, values in some.items()})


def read_index(path: Path, config: SplitsConfig) -> TileIndex:
    """Read the index; rows of scenes that are only mapped (role `predict`) are left out.

    Args:
        path: `tiles/index.csv`.
        config: Says which fields are needed.

    Raises:
        InputError: If columns are missing, a tile is doubled, a number is missing or out of its range, or no tile
            has a label; tells all of it.
    """
    if not path.is_file():
        raise InputError(Problem(str(path), "does not exist", "Make the tiles first."))
    field = f"field_{config.column}" if config.method in ("column", "given") else None
    subsets = "field_subsets" if config.given_fractions else None
    texts = [*_TEXT, *dict.fromkeys(name for name in (field, subsets) if name)]
    header = pd.read_csv(path, nrows=0).columns.tolist()
    shares = [name for name in header if name.startswith("share_")]
    asked = [] if config.max_misalignment is None else [_ALIGNMENT]
    _check_columns(path, header, [*texts, *asked], shares)
    places = [name for name in (*COLUMNS, NORTH_UP, *CIRCLE) if name in header]
    frame = _read(path, texts, [*_WINDOW, "label_share", *shares, *places, *asked], "crs" in header)
    frame = frame[frame["role"] != "predict"].sort_values("tile", kind="stable", ignore_index=True)
    _check_rows(path, frame, shares, field)
    scene, scenes = _scenes(frame)
    window = frame[_WINDOW].to_numpy(np.int64)
    pixels = frame["label_share"].to_numpy() * (window[:, 2] * window[:, 3])
    area = np.empty((len(frame), len(shares)), np.int32)
    for k, name in enumerate(shares):
        area[:, k] = np.rint(np.nan_to_num(frame[name].to_numpy()) * pixels)
    return TileIndex(
        frame["tile"].to_numpy(object),
        scene,
        scenes,
        window,
        frame["label_share"].to_numpy() > 0,
        area,
        [name.removeprefix("share_") for name in shares],
        frame[field].to_numpy(object) if field else None,
        frame[subsets].to_numpy(object) if subsets else None,
        locate(frame, window),
        frame[_ALIGNMENT].to_numpy(np.float64) if asked else None,
    )


def index_sha256(path: Path) -> str:
    """SHA-256 of the header and the sorted rows: that of the file itself, as its rows are written in this order."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.readline())
        last = b""
        for line in file:
            if line < last:
                break
            digest.update(line)
            last = line
        else:
            return digest.hexdigest()
    header, *rows = path.read_bytes().splitlines(keepends=True)
    ends = b"" if header.endswith(b"\r\n") else b"\n"
    return hashlib.sha256(header + b"".join(sorted(r if r.endswith(b"\n") else r + ends for r in rows))).hexdigest()


def _read(path: Path, texts: list[str], numbers: list[str], with_crs: bool) -> pd.DataFrame:
    """The wanted columns; a number that cannot be read becomes NaN."""
    kinds = {**dict.fromkeys(texts, "str"), "role": "category", **({"crs": "category"} if with_crs else {})}
    wanted = [*kinds, *numbers]
    try:
        return pd.read_csv(
            path,
            usecols=wanted,
            dtype={**kinds, **dict.fromkeys(numbers, "float64")},
            keep_default_na=False,
            na_values={name: ["", "nan", "NaN"] for name in numbers},
        )
    except ValueError:
        frame = pd.read_csv(path, usecols=wanted, dtype="str", keep_default_na=False)
        return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in numbers})


def _check_columns(path: Path, header: list[str], texts: list[str], shares: list[str]) -> None:
    problems = [
        Problem(str(path), f"has no column `{name}`", _column_remedy(name, header))
        for name in [*texts, *_WINDOW, "label_share"]
        if name not in header
    ]
    if not shares:
        problems.append(Problem(str(path), "has no columns `share_<class>`", _REMEDY))
    if problems:
        raise InputError(problems)


def _column_remedy(name: str, header: list[str]) -> str:
    if name == _ALIGNMENT:
        return "Let the tiling stage write the index anew, or set `splits.max_misalignment` to null."
    if name == "field_subsets":
        return "Only layout `seed` comes with label subsets; set `splits.given_fractions` to false."
    if name.startswith("field_"):
        known = [column.removeprefix("field_") for column in header if column.startswith("field_")]
        return f"Set `splits.column` to a field of the source; it has {known}."
    return _REMEDY


def _check_rows(path: Path, frame: pd.DataFrame, shares: list[str], field: str | None) -> None:
    where = str(path)
    problems: list[Problem] = []

    def complain(wrong: pd.Series[bool], what: str, remedy: str = _REMEDY) -> None:
        if wrong.any():
            problems.append(Problem(where, f"{what}: {format_names(frame['tile'][wrong].unique())}", remedy))

    complain(frame["tile"].duplicated(), "names tiles twice")
    complain(frame["tile"].str.strip() == "", "has rows without a tile name")
    for name in _WINDOW:
        lowest = 1 if name in ("height", "width") else -(2**31)
        complain(~(frame[name] >= lowest) | (frame[name] % 1 != 0), f"`{name}` is no proper whole number")
    complain(~frame["label_share"].between(0, 1), "`label_share` is not between 0 and 1")
    labelled = frame["label_share"] > 0
    for name in shares:
        wrong = ~frame[name].between(0, 1) & (labelled | frame[name].notna())
        complain(wrong, f"`{name}` is not between 0 and 1")
    if field:
        complain(frame[field] == "", f"`{field}` is empty", "Give every tile a value, or exclude these tiles.")
    if not labelled.any():
        what = f"none of its {len(frame)} tiles has a label"
        problems.append(Problem(where, what, "Check the label files and `labels`; without labels nothing is learnt."))
    if problems:
        raise InputError(problems)


def _scenes(frame: pd.DataFrame) -> tuple[IntArray, list[str]]:
    """Numbers and names of scenes.

    Ready-made tiles may have no scene, or one name for all and the same window: then no place in it is known, and
    each counts as a scene of its own.
    """
    codes, _ = pd.factorize(frame["scene"])
    first = frame[["row", "col"]].groupby(codes)
    same = (first.transform("min") == first.transform("max")).all(axis=1).to_numpy()
    placeless = (frame["scene"] == "").to_numpy() | (same & (np.bincount(codes)[codes] > 1))
    names = frame["scene"].mask(placeless, frame["tile"]) if placeless.any() else frame["scene"]
    codes, unique = pd.factorize(names)
    return codes.astype(np.int64), [str(name) for name in unique]
