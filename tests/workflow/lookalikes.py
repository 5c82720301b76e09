"""Small folders that look like published data sets: same names, same coding, a few dozen pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.transform import from_origin
from skimage.io import imsave

from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.writer import write_raster

SIZE = 96


def landscape(seed: int, classes: int, size: int = SIZE) -> np.ndarray:
    """Class ids 0..classes-1 in patches of 12 pixels, every class present."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, classes, (size // 12, size // 12))
    cells.flat[rng.permutation(cells.size)[:classes]] = np.arange(classes)
    return np.kron(cells, np.ones((12, 12), dtype=int))


def images(ids: np.ndarray, seed: int, optical_bands: int, sar_bands: int) -> tuple[np.ndarray, np.ndarray]:
    """8-bit optical and SAR pictures, C x H x W, that separate the classes."""
    rng = np.random.default_rng(seed + 1000)
    optical = np.stack([40 + 20 * ids + 9 * band for band in range(optical_bands)]) + rng.normal(
        0, 6, (optical_bands, *ids.shape)
    )
    sar = np.stack([60 + 25 * (ids % 3)] * sar_bands) * rng.gamma(6, 1 / 6, (1, *ids.shape))
    return optical.clip(1, 255).astype(np.uint8), sar.clip(1, 255).astype(np.uint8)


def whu_opt_sar(root: Path, scenes: int = 6) -> Path:
    codes = np.array([0, 10, 20, 30, 40, 50, 60, 70], dtype=np.uint8)
    for number in range(scenes):
        ids = landscape(number, 8)
        optical, sar = images(ids, number, 4, 1)
        grid = Grid("EPSG:32649", from_origin(5e5 + 2000 * number, 3.4e6, 5, 5), SIZE, SIZE)
        name = f"NH49E{number:03d}.tif"
        for folder, array in (("optical", optical), ("sar", sar), ("lbl", codes[ids])):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_raster(root / folder / name, array, grid)
    return root


def yeseg_opt_sar(root: Path, areas: int = 5, tiles: int = 6) -> Path:
    for area in range(areas):
        for tile in range(tiles):
            ids = landscape(100 * area + tile, 8, 48)
            optical, sar = images(ids, tile, 3, 1)
            for folder, array in (("optical", optical), ("sar", sar), ("label", ids[None].astype(np.uint8))):
                path = root / folder / f"area{area}" / f"{tile}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                imsave(path, array.transpose(1, 2, 0).squeeze(), check_contrast=False)
    return root


def _sentinel_tiles(root: Path, folder: str, area: int, tiles: int, label: str, codes: np.ndarray) -> None:
    """Sentinel-2 (13 bands), Sentinel-1 in dB and labels (C x H x W of `codes`) in the naming of SEN12MS."""
    for tile in range(tiles):
        ids = landscape(100 * area + tile, codes.shape[1], 48)
        optical, sar = images(ids, tile, 13, 2)
        decibels = (10 * np.log10(sar / 255)).astype(np.float32)
        grid = Grid("EPSG:32633", from_origin(3e5 + 9e4 * area + 480 * tile, 5.8e6, 10, 10), 48, 48)
        for kind, array in (("s2", optical.astype(np.uint16) * 20), ("s1", decibels), (label, codes[:, ids])):
            path = root / folder / f"{kind}_{area}" / f"{folder}_{kind}_{area}_p{tile}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_raster(path, array, grid)


def dfc2020(root: Path) -> Path:
    codes = np.array([[1, 2, 4, 5, 6, 7, 9, 10]], np.uint8)
    for part, tiles in (("validation", 24), ("test", 6)):
        _sentinel_tiles(root, f"ROIs0000_{part}", 0 if part == "validation" else 1, tiles, "dfc", codes)
    return root


def sen12ms(root: Path) -> Path:
    igbp = [1, 6, 8, 10, 11, 12, 13, 15, 16, 17]
    codes = np.array([igbp, *np.full((3, len(igbp)), 40)], np.uint8)
    for area in range(6):
        season = ("ROIs1158_spring", "ROIs1868_summer")[area % 2]
        _sentinel_tiles(root, season, area, 6, "lc", codes)
    return root


def potsdam(root: Path, scenes: int = 6) -> Path:
    colours = np.array(
        [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]], dtype=np.uint8
    )
    folders = {name: root / name for name in ("2_Ortho_RGB", "1_DSM", "5_Labels_all")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(scenes):
        row, col = 2, 8 + number
        ids = landscape(number, 6)
        optical, _ = images(ids, number, 3, 1)
        height = (30 + 5 * (ids == 1) + 3 * (ids == 3)).astype(np.float32)
        grid = Grid("EPSG:32633", from_origin(3.66e5 + 10 * number, 5.8e6, 0.05, 0.05), SIZE, SIZE)
        write_raster(folders["2_Ortho_RGB"] / f"top_potsdam_{row}_{col}_RGB.tif", optical, grid)
        write_raster(folders["1_DSM"] / f"dsm_potsdam_{row:02d}_{col:02d}.tif", height, grid)
        write_raster(
            folders["5_Labels_all"] / f"top_potsdam_{row}_{col}_label.tif", colours[ids].transpose(2, 0, 1), grid
        )
    return root


def seed_layout(root: Path, train: int = 24, val: int = 6) -> Path:
    """The folder layout of the published code, with a 5 % label list."""
    names = {"train": [f"t{n:03d}" for n in range(train)], "val": [f"v{n:03d}" for n in range(val)]}
    for part, tiles in names.items():
        for kind in ("RGB", "SAR", "lbl"):
            (root / f"{part}_{kind}").mkdir(parents=True, exist_ok=True)
            (root / f"{part}_{kind}.txt").write_text("".join(f"{t}.tif\n" for t in tiles))
        for number, tile in enumerate(tiles):
            ids = landscape(number + 50 * (part == "val"), 3, 48)
            optical, sar = images(ids, number, 3, 3)
            for kind, array in (("RGB", optical), ("SAR", sar), ("lbl", ids[None].astype(np.uint8))):
                write_raster(root / f"{part}_{kind}" / f"{tile}.tif", array, None)
    for kind in ("RGB", "SAR", "lbl"):
        (root / f"trainR5_{kind}.txt").write_text("t003.tif\nt007.tif\n")
    (root / "class_dict.txt").write_text("name,r,g,b\nfield,200,200,0\nwater,0,0,255\nwood,0,120,0\n")
    return root
