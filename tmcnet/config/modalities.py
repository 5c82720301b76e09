"""Names of modalities: optical, SAR and whatever else a data set has of the same ground."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

REQUIRED = ("optical", "sar")
"""Modalities that every data set has, in this order; registration and speckle filtering concern these two alone."""

RESERVED = (
    *("label", "scene", "role", "both", "stacked", "further"),
    *("optical_nodata", "sar_nodata", "sar_scale"),
    *("layout", "sheet", "exclude", "crs", "demo"),
    *("clip", "n_tiles"),
)
"""Names that mean something else: files of a scene, columns of a sample sheet, keys of `source`, networks, keys of
normalisation.json."""

ONLY = "_only"
"""End of the names of networks that look at one modality: `optical_only`, `sar_only`, `dem_only`."""


def _is_free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"`{name}` is reserved; a modality needs another name than {', '.join(RESERVED)}")
    return name


ModalityName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=30), AfterValidator(_is_free)
]
"""Name of a modality; becomes the name of files, folders, tensors and columns."""


def only_modality(network: str) -> str | None:
    """Return the one modality that a network looks at (`dem` of `dem_only`), or None if it looks at all of them."""
    return network.removesuffix(ONLY) if network.endswith(ONLY) else None
