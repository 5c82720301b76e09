"""Config of how scenes are brought to one grid, cut into tiles and their values to one range."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tmcnet.config.base import Section

AlignModel = Literal["shift", "affine", "quadratic", "thin_plate"]


class AlignConfig(Section):
    """How the second sensor is registered to the optical grid."""

    enabled: bool = Field(
        True, description="Match the images. When false, the georeference is believed as delivered."
    )
    resolution: float | None = Field(
        None,
        gt=0,
        description="Pixel size of the common grid in units of the scene's CRS; null: as the optical image.",
    )
    max_shift: int = Field(
        60,
        ge=2,
        le=200,
        description="Largest shift at the centre of a scene that is looked for, in pixels of the grid. Errors of up "
        "to 2 degrees in rotation and 3 % in scale are looked for as well.",
    )
    models: list[AlignModel] = Field(
        ["shift", "affine", "quadratic", "thin_plate"],
        min_length=1,
        description="Models of the displacement that may be used. The one taken is that which best tells control "
        "points in parts of the scene that it was not fitted to, and none at all where none clearly helps.",
    )
    spacing: int = Field(32, ge=8, description="Distance between control points in pixels.")
    template: int = Field(64, ge=24, description="Side of the window matched around a control point in pixels.")
    min_points: int = Field(12, ge=4, description="Fewest reliable control points for a correction to be believed.")
    min_inlier_share: float = Field(
        0.3, gt=0, le=1, description="Smallest share of control points that must agree with their neighbours."
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
