"""Config of the splits: parts, blocks and label fractions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from pydantic import Field

from tmcnet.config.base import Section

Part = Literal["train", "val", "test"]
"""A part of the data set; torchgeo and others call it a split."""
PARTS: tuple[str, ...] = get_args(Part)
"""The parts in the order of their numbers."""


class SharesConfig(Section):
    """Wanted shares of the parts; ignored with `folds`."""

    train: float = Field(0.6, gt=0, lt=1)
    """Share of training tiles."""
    val: float = Field(0.2, gt=0, lt=1)
    """Share of validation tiles."""
    test: float = Field(0.2, gt=0, lt=1)
    """Share of test tiles."""

    def _problems(self) -> Iterator[str]:
        if abs((total := self.train + self.val + self.test) - 1) > 1e-6:
            yield f"`train`, `val` and `test` must add up to 1; they add up to {total:g}"


class GivenConfig(Section):
    """Values of `column` of each part. A part without values is drawn from the training tiles."""

    train: list[str] = Field(["train"], min_length=1)
    """Values of the training part."""
    val: list[str] = []
    """Values of the validation part."""
    test: list[str] = ["test"]
    """Values of the test part."""


class SplitsConfig(Section):
    """How tiles are divided into training, validation and test parts, and how few labels are used."""

    method: Literal["blocks", "scenes", "column", "given"] = "blocks"
    """`blocks`: square spatial blocks. `scenes`: whole scenes. `column`: groups with the same value of `column` (an
    area, say). `given`: the parts that the source comes with."""
    block_size: int = Field(256, ge=16)
    """Side of a spatial block in pixels of the common grid. Ready-made tiles with a CRS are in blocks on the ground,
    of this many of their pixels, so that overlapping ones stay together; without one, each is a block."""
    block_metres: float | None = Field(None, gt=0)
    """Side of a spatial block in metres, in place of `block_size`; null: use `block_size`. Needs scenes with a CRS
    and pixels of one size."""
    guard: int = Field(0, ge=0)
    """Width in pixels of the band kept empty between tiles of different parts."""
    max_misalignment: float | None = Field(None, gt=0)
    """Maximum RMSE in pixels of the registration at the tie points in and near a tile (`alignment_px` of the index);
    worse tiles are in no part. Tiles without such points stay. null: all stay."""
    column: str = "part"
    """Field of the source's pattern that methods `column` and `given` use."""
    given: GivenConfig = GivenConfig()
    shares: SharesConfig = SharesConfig()
    """Wanted shares of the three parts; ignored with `folds`."""
    folds: int | None = Field(None, ge=3)
    """Cross-validation: number of folds. Every run of the sweep is trained and tested once a fold, with the next fold
    as validation part. Scores are those of all test parts together. null: one division by `shares`."""
    fold: int = Field(1, ge=1)
    """Fold tested in `results_dir/splits`; its networks draw the maps. The others are in `results_dir/folds`."""
    fractions: list[float] = Field([5, 25, 100], min_length=1)
    """Label fractions in percent of the training tiles; nested."""
    points: list[int] = []
    """Sparse annotation: numbers of labelled pixels of each class, over all labelled training tiles, everything else
    void (`trainP10`); nested."""
    subsets: int = Field(3, ge=1)
    """Draws of the label fractions and points (`trainR5`, `trainR5_s2`, ...). Those of a fraction share no tiles as
    long as there are enough."""
    given_fractions: bool = False
    """Layout `seed`: take label fractions from its lists (`trainR5_RGB.txt`) where they exist."""
    seed: int = Field(1, ge=0)
    """Seed of the splits."""

    @property
    def folders(self) -> dict[int, str]:
        """Folder of each fold below the results: none for the tested `fold`, `folds/<n>/` for the others."""
        return {n: "" if n == self.fold else f"folds/{n}/" for n in range(1, (self.folds or 1) + 1)}

    @property
    def wanted(self) -> tuple[float, float, float]:
        """Wanted shares of the training, validation and test part."""
        if self.folds is None:
            return self.shares.train, self.shares.val, self.shares.test
        return 1 - 2 / self.folds, 1 / self.folds, 1 / self.folds

    def _problems(self) -> Iterator[str]:
        if self.folds is not None and self.method == "given":
            yield "`folds` are drawn, so `method` cannot be `given`"
        if self.fold > (self.folds or 1):
            yield f"`fold` is {self.fold}, but there are {self.folds or 'no'} `folds`"
        if any(not 0 < f <= 100 for f in self.fractions):
            yield f"`fractions` are percentages above 0 and up to 100, not {self.fractions}"
        if long := [f for f in self.fractions if float(f"{f:g}") != f or "e" in f"{f:g}"]:
            yield f"`fractions` have at most six digits, because files are named by them, not {long}"
        if sorted(set(self.fractions)) != list(self.fractions):
            yield f"`fractions` must ascend without doubles, not {self.fractions}"
        if any(n < 1 for n in self.points) or sorted(set(self.points)) != list(self.points):
            yield f"`points` are whole numbers from 1 that ascend without doubles, not {self.points}"
