"""What the sections of the config share: their base class, and names of modalities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

REQUIRED = ("optical", "sar")
"""Modalities of every data set, in this order; only these two are registered to each other."""

RESERVED = (
    *("label", "scene", "role", "both", "stacked"),
    *("layout", "sheet", "exclude", "crs", "remote", "demo", "masks"),
    *("clip", "n_tiles"),
)
"""Names with another meaning: files of a scene, columns of a sample sheet, keys of `source`, networks, keys of
normalisation.json."""

OVERRIDE_ENDINGS = ("_nodata", "_scale", "_scale_factor", "_add_offset", "_mask", "_mask_codes", "_mask_bits")
"""Ends of columns of the sample sheet that replace keys of a modality for one scene, such as `sar_nodata`."""

ONLY = "_only"
"""End of the names of networks that use one modality: `optical_only`, `sar_only`, `dem_only`."""
AND = "_and_"
"""Separates the members of an ensemble in its name."""


class Section(BaseModel):
    """A section of the config: unknown keys are errors, and values are constant.

    The text below a key is its description in config/README.md and config/schema.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with keys that are right one by one."""
        yield from ()

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if found := list(dict.fromkeys(self._problems())):
            raise ValueError("; ".join(found))
        return self


def _check_free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"`{name}` is reserved; a modality needs another name than {', '.join(RESERVED)}")
    if name.endswith(OVERRIDE_ENDINGS):
        raise ValueError(f"`{name}` is reserved for a column of the sample sheet; a modality needs another name")
    return name


ModalityName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=30), AfterValidator(_check_free)
]
"""Name of a modality; also used for files, folders, tensors and columns."""


def only_modality(network: str) -> str | None:
    """Return the one modality that a network uses (`dem` of `dem_only`), or None for ensembles and others."""
    return network.removesuffix(ONLY) if network.endswith(ONLY) and AND not in network else None
