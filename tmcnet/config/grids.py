"""Config of how scenes are brought to one grid, cut into tiles and their values to one range."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tmcnet.config.base import Section

AlignModel = Literal["shift", "affine", "quadratic", "thin_plate"]


class AlignConfig(Section):
    """Co-registration of the SAR image to the optical image."""

    enabled: bool = Field(True, description="Match the images. When false, the georeference is used as delivered.")
    resolution: float | None = Field(
        None,
        gt=0,
        description="Pixel size of the common grid in units of the scene's CRS; null: that of the optical image.",
    )
    max_shift: int = Field(
        60,
        ge=2,
        le=200,
        description="Search radius: largest shift at the centre of a scene, in pixels of the common grid. Rotations "
        "up to 2 degrees and scale errors up to 3 % are always searched.",
    )
    models: list[AlignModel] = Field(
        ["shift", "affine", "quadratic", "thin_plate"],
        min_length=1,
        description="Allowed models of the displacement. The one with the lowest held-out RMSE at tie points is "
        "used, or none if no model clearly lowers it.",
    )


class TilesConfig(Section):
    """How scenes are cut into tiles."""

    size: int = Field(128, ge=16, description="Height and width of a tile in pixels.")
    stride: int = Field(
        128, ge=8, description="Step between tiles in pixels; tiles overlap where it is smaller than `size`."
    )
    edge: Literal["pad", "shift", "drop"] = Field(
        "shift",
        description="What to do at the far edges: `pad` with no data, `shift` the last tile inwards so that it "
        "overlaps its neighbour, or `drop` it.",
    )
    min_valid: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Minimum share of pixels that are valid in all modalities; other tiles are dropped.",
    )
    store: Literal["files", "virtual"] = Field(
        "files",
        description="`files`: write each tile as one GeoTIFF per modality and one for the label. `virtual`: write "
        "only the index and read tiles as windows of the aligned scenes, which saves a copy of all pixels; not for "
        "ready-made tiles.",
    )

    @model_validator(mode="after")
    def _stride_leaves_no_gap(self) -> TilesConfig:
        if self.stride > self.size:
            raise ValueError(f"`stride` ({self.stride}) must not exceed `size` ({self.size}), else strips are lost")
        return self


class NormaliseConfig(Section):
    """How band values are brought to a common range: robust statistics of the training tiles."""

    low: float = Field(2.0, ge=0, lt=50, description="Lower percentile of a band, mapped to -1.")
    high: float = Field(98.0, gt=50, le=100, description="Upper percentile of a band, mapped to +1.")
    clip: float = Field(1.5, ge=1, description="Values are clipped to plus and minus this much after scaling.")
