"""What was read of a scene or tile, on its way through the checks to the records."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

from tmcnet.errors import Problem
from tmcnet.raster.inventory.fill import Lattice
from tmcnet.raster.inventory.sample_sheet import Entry
from tmcnet.raster.inventory.scan import FileSummary
from tmcnet.raster.io.geometry import Grid, finest
from tmcnet.raster.io.reader import Raster


@dataclass
class Inspection:
    """A scene or tile whose files have been read through."""

    entry: Entry  # its name and files
    rasters: dict[str, Raster] = field(default_factory=dict)  # the files of each modality as they are read
    label_raster: Raster | None = None  # the label file as it is read
    # summaries of the files of each modality; empty where the scene has none
    images: dict[str, list[FileSummary]] = field(default_factory=dict)
    # decimated images of each modality, one for each group of files on one grid
    lattices: dict[str, list[Lattice]] = field(default_factory=dict)
    label: FileSummary | None = None  # summary of the label file
    # declared or detected scale of each modality; empty without files, or where it cannot be detected
    scales: dict[str, str] = field(default_factory=dict)
    # share of the scene that each modality covers; 0 without files
    overlaps: dict[str, float] = field(default_factory=dict)
    # share of the scene where a modality has no data, but another one has
    gaps: dict[str, float] = field(default_factory=dict)
    label_overlap: float = 1.0  # share of the scene that the label file covers
    labelled_share: float = 0.0  # share of the scene that has a class
    # names of the classes when label features that give codes were first read; empty where features name their class
    label_names: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # errors, which stop the workflow
    warnings: list[str] = field(default_factory=list)  # oddities, which are listed in the inventory

    def to_dict(self) -> dict[str, Any]:
        """As values for `as_json`: what comparisons between scenes need."""
        scales = {name: {"scale": self.entry.scale(name)} for name in self.images}
        return {
            "entry": {"scene": self.entry.scene, "role": self.entry.role, "declared": scales},
            "images": {name: [file.to_dict() for file in files] for name, files in self.images.items()},
            "scales": self.scales,
            "problems": [astuple(problem) for problem in self.problems],
            "warnings": self.warnings,
        }

    @classmethod
    def of(cls, values: dict[str, Any]) -> Inspection:
        """Build from the values of `to_dict` as they are read from JSON."""
        return cls(
            Entry(images={}, **values["entry"]),
            images={name: [FileSummary.of(file) for file in files] for name, files in values["images"].items()},
            scales=values["scales"],
            problems=[Problem(*problem) for problem in values["problems"]],
            warnings=values["warnings"],
        )

    @property
    def reference(self) -> str:
        """The modality that defines the grid of the scene: `optical`, where there is one, else `sar`."""
        return "optical" if self.images["optical"] else "sar"

    @property
    def grid(self) -> Grid:
        """Grid of the file of the reference modality that has the smallest pixels."""
        return finest([file.grid for file in self.images[self.reference]])

    @property
    def files(self) -> list[FileSummary]:
        """Summaries of all files: images, label."""
        return [file for files in self.images.values() for file in files] + ([self.label] if self.label else [])

    @property
    def has_both(self) -> bool:
        """Whether there are optical and SAR files."""
        return bool(self.images["optical"] and self.images["sar"])
