"""Where the tiles of a results folder lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tmcnet.classes import ClassTable


@dataclass(frozen=True)
class TileStore:
    """The folder `tiles/`: one GeoTIFF per tile and kind, an index and a class table."""

    root: Path

    @property
    def index(self) -> Path:
        """The table of all tiles."""
        return self.root / "index.csv"

    @property
    def classes(self) -> ClassTable:
        """The class table."""
        return ClassTable.read(self.root / "classes.csv")

    def path(self, kind: str, tile: str) -> Path:
        """File of one tile; `kind` is `optical`, `sar`, `label` or the name of a further modality."""
        return self.root / kind / f"{tile}.tif"


def read_list(path: Path | str) -> list[str]:
    """Tile names of a list file, one a line, in file order."""
    return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
