"""Further modalities: what an image beside the optical one and that of the second sensor may be called."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from tmcnet.config.base import Section

RESERVED = (
    *("optical", "sar", "label", "scene", "role", "both", "stacked"),
    *("optical_nodata", "sar_nodata", "sar_scale"),
)
"""Names that mean something else: files of a scene, columns of a sample sheet, parts of networks."""

ONLY = "_only"
"""End of the names of networks that look at one modality: `optical_only`, `sar_only`, `dem_only`."""


def _is_free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"`{name}` is taken; a further modality needs another name than {', '.join(RESERVED)}")
    return name


ModalityName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=30), AfterValidator(_is_free)
]
"""Name of a further modality; becomes the name of files, folders, tensors and columns."""


def only_modality(network: str) -> str | None:
    """The one modality that a network looks at (`dem` of `dem_only`); None where it looks at all of them."""
    return network.removesuffix(ONLY) if network.endswith(ONLY) else None


def sensor_key(name: str) -> str:
    """The config key of a modality: `sensors.optical`, `sensors.further.dem`."""
    return f"sensors.{name}" if name in ("optical", "sar") else f"sensors.further.{name}"


class WithFurther(Section):
    """A section with a key `further`, which is told only where it holds something.

    What was made from two modalities before the key existed so stays up to date.
    """

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = told(self)
        return {key: value for key, value in values.items() if key != "further" or value}
