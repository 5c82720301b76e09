"""Values as files hold them, converted to those of aligned scenes inside an exported model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from tmcnet.config import SensorConfig
from tmcnet.dataset.normalise import FloatArray
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.radiometry import to_db

UNITS = {"linear": "linear power", "amplitude": "amplitude", "db": "dB", "none": "as delivered"}
"""Unit of the values by their scale."""


@dataclass(frozen=True)
class RawValues:
    """What the numbers in the files of one modality mean.

    Attributes:
        scale: `linear`, `amplitude` or `db` for backscatter, which is converted to dB and clipped; `none`.
        factor: Factor from the numbers to the values.
        offset: Offset beside the factor.
        clip_db: Range of backscatter in dB.
    """

    scale: str
    factor: float
    offset: float
    clip_db: tuple[float, float]

    @classmethod
    def of(cls, name: str, sensor: SensorConfig, scale: str | None) -> RawValues:
        """Choose the conversion of a modality.

        Args:
            name: Its name.
            sensor: Its config in training.
            scale: Scale of the backscatter; None: that of training.

        Raises:
            InputError: If the scale is unknown, or a filter stands between the files and the network.
        """
        factor, offset = sensor.scaling or (1.0, 0.0)
        if sensor.kind != "backscatter" or sensor.scale == "none":
            return cls("none", factor, offset, sensor.clip_db)
        chosen = scale or sensor.scale
        if chosen == "auto":
            what = f"the scale of `{name}` was detected from each file in training"
            raise InputError(Problem("--raw", what, "Give that of your files: `--raw linear`, `amplitude` or `db`."))
        if sensor.speckle != "none":
            what = f"the network was trained on `{name}` after the speckle filter `{sensor.speckle}`"
            remedy = "Export without `--raw`, and filter images as the workflow does; or use `tmcnet predict`."
            raise InputError(Problem("--raw", what, remedy))
        return cls(chosen, factor, offset, sensor.clip_db)

    def convert(self, numbers: FloatArray) -> FloatArray:
        """Values as in aligned scenes; backscatter in dB. NaN remains NaN."""
        return to_db(numbers * self.factor + self.offset, self.scale, self.clip_db)

    def invert(self, values: FloatArray) -> FloatArray:
        """Numbers in files of values as in aligned scenes."""
        divisor = {"linear": 10, "amplitude": 20}.get(self.scale)
        numbers = np.power(10, values / divisor) if divisor else values
        return ((numbers - self.offset) / self.factor).astype(np.float32)


class RawConversion(nn.Module):
    """`RawValues.convert` as part of an exported graph."""

    def __init__(self, raw: RawValues) -> None:
        super().__init__()
        self.raw = raw
        self.least_power = 10 ** (raw.clip_db[0] / 10)

    def forward(self, numbers: Tensor) -> Tensor:
        """Convert N x C x H x W numbers; the result where there is no data (NaN) is undefined."""
        values = numbers * self.raw.factor + self.raw.offset
        if self.raw.scale == "none":
            return values
        if self.raw.scale != "db":
            power = values * values if self.raw.scale == "amplitude" else values
            values = power.clamp(min=self.least_power).log() * (10 / math.log(10))
        return values.clamp(*self.raw.clip_db)
