"""Small scenes made in code, and the config sections that go with them."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tmcnet.config import ClassConfig, LabelsConfig, SensorConfig, SensorsConfig, SourceConfig, TilesConfig
from tmcnet.raster.inventory.inventory import inspect_scenes, take_inventory
from tmcnet.raster.inventory.records import Inventory
from tmcnet.raster.tiling import grid
from tmcnet.raster.tiling.tiles import cut_tiles, merge_index
from tmcnet.raster.tiling.unchanged import require_unchanged
from tmcnet.readers import read_rows
from tmcnet.store import TileStore

UTM = ("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000))


@dataclass
class Source:
    """A source in a folder, with the config that reads it."""

    root: Path
    source: SourceConfig = field(
        default_factory=lambda: SourceConfig(
            layout="scenes", optical="{scene}_o.tif", sar="{scene}_s.tif", label="{scene}_l.tif"
        )
    )
    sensors: SensorsConfig = field(
        default_factory=lambda: SensorsConfig(
            optical=SensorConfig(bands=["red", "nir"], kind="reflectance"),
            sar=SensorConfig(bands=["vv"], kind="backscatter", scale="linear"),
        )
    )
    labels: LabelsConfig = field(
        default_factory=lambda: LabelsConfig(
            void=[0],
            classes=[
                ClassConfig(name="water", codes=[1], color="#0000ff"),
                ClassConfig(name="land", codes=[2, 3], color="#00ff00"),
            ],
        )
    )

    @property
    def json(self) -> Path:
        return self.root / "results" / "inventory.json"

    def take(self) -> Inventory:
        part = self.json.parent / "inventory" / "all.json"
        inspect_scenes(self.source, self.sensors, self.labels, self.root, None, part, threads=2)
        take_inventory([part], self.sensors, self.labels, self.json, self.json.with_suffix(".csv"))
        return Inventory.read(self.json)

    def cut(self, tiles: TilesConfig, root: Path | None = None, threads: int = 2) -> Path:
        """Cut the tiles of all scenes of the inventory; return their folder."""
        root = root or self.json.parent / "tiles"
        table = root / "index" / "all.csv"
        cut_tiles(self.json, self.json.parent / "scenes", self.sensors, self.labels, tiles, table, threads)
        merge_index([table], self.json, self.labels, self.sensors, root)
        store = TileStore(root)
        os.utime(store.index, (0, 0))  # as if all tiles were touched since
        for row in read_rows(store.index, ["tile"]):
            require_unchanged(store, row["tile"], list(self.sensors))
        return root

    def write(self, name: str, array, crs=UTM[0], transform=UTM[1], **profile) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = array if array.ndim == 3 else array[None]
        count, height, width = bands.shape
        profile = {"driver": "GTiff", "dtype": bands.dtype.name, "crs": crs, "transform": transform} | profile
        with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as dataset:
            dataset.write(bands)
        return path

    def scene(self, name: str, size: int = 64, seed: int = 0, label: bool = True, transform=UTM[1]) -> None:
        """A valid scene: optical uint16 with no data 0, linear SAR, codes 0 (void) to 3."""
        rng = np.random.default_rng(seed)
        self.write(
            f"{name}_o.tif", rng.integers(1, 4000, (2, size, size)).astype("u2"), nodata=0, transform=transform
        )
        self.write(f"{name}_s.tif", rng.gamma(2, 0.05, (size, size)).astype("f4"), transform=transform)
        if label:
            self.write(f"{name}_l.tif", rng.integers(0, 4, (size, size)).astype("u1"), transform=transform)

    def sheet(self, *rows: str) -> None:
        """Take the scenes from a sample sheet with these rows."""
        path = self.root / "scenes.csv"
        path.write_text("\n".join(["scene,optical,sar,label,role", *rows]) + "\n")
        self.source = SourceConfig(layout="scenes", sheet=str(path))


SERVER = """
import hashlib, http.server, pathlib, re, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        pathlib.Path("asked").open("a").write(self.path + "\\n")
        path = pathlib.Path(self.path.lstrip("/"))
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        part = re.fullmatch(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), min(int(part[2] or last), last)
        self.send_response(206 if part else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", hashlib.md5(content).hexdigest())
        self.send_header("Content-Length", str(last - first + 1))
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first : last + 1])
    do_HEAD = do_GET
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""A server on loopback that can send parts of files. A process of its own: GDAL blocks all threads while it waits."""


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the pictures of alignments, which take most of the time of a small scene."""
    monkeypatch.setattr(grid.picture, "draw", lambda *_: None)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.fixture
def tile_source(tmp_path: Path) -> Source:
    """Ready-made 8-bit PNG tiles in two parts."""
    return Source(
        tmp_path,
        SourceConfig(
            layout="tiles",
            optical="{part}/o_{tile:d}.png",
            sar="{part}/s_{tile:d}.png",
            label="{part}/l_{tile:d}.png",
        ),
        SensorsConfig(
            optical=SensorConfig(bands=["r", "g", "b"], kind="reflectance", nodata=0),
            sar=SensorConfig(bands=["vv"], kind="backscatter", scale="auto"),
        ),
        LabelsConfig(
            classes=[
                ClassConfig(name="dry", codes=[0], color="#cccccc"),
                ClassConfig(name="flood", codes=[255], color="#0000ff"),
            ]
        ),
    )


@pytest.fixture
def write_png_tile() -> Callable[..., None]:
    def write(source: Source, part: str, tile: str, size: int = 32, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        png = {"driver": "PNG", "crs": None, "transform": None}
        source.write(f"{part}/o_{tile}.png", rng.integers(0, 255, (3, size, size)).astype("u1"), **png)
        source.write(f"{part}/s_{tile}.png", rng.integers(0, 255, (size, size)).astype("u1"), **png)
        source.write(f"{part}/l_{tile}.png", (rng.integers(0, 2, (size, size)) * 255).astype("u1"), **png)

    return write


@pytest.fixture
def served(tmp_path):
    """The address of a server of the folder `served`, and the file in which it notes what it was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}", folder / "asked"
        server.kill()
