"""Map scenes that a network has not seen, from their files: the same steps as in the workflow, without a config."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tmcnet.config import ComputeConfig, LabelsConfig, MapsConfig, SourceConfig
from tmcnet.config.base import only_modality
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.map_files import MapStyle, confidence_of, style_map
from tmcnet.evaluate.maps import SceneImages, predict_map, require_fit
from tmcnet.evaluate.trained import Trained, choose_device
from tmcnet.raster.inventory.inventory import inspect_scenes, take_inventory
from tmcnet.raster.inventory.records import Inventory, Record
from tmcnet.raster.io.bands import band_names, write_band
from tmcnet.raster.io.gdal_tools import require_tools, run_tool
from tmcnet.raster.io.geometry import pixel_area
from tmcnet.raster.tiling.grid import align_scene

MAX_GSD_RATIO = 1.1
"""Pixels of other sizes than in training, by more than this factor, are resampled."""
_NO_LABELS = LabelsConfig()


@dataclass(frozen=True)
class MapOptions:
    """How new scenes are mapped.

    Attributes:
        maps: Window, overlap, test-time copies, polygons.
        compute: Threads and accelerator.
        register: Whether SAR images are registered; None: as in training.
        confidence: Whether the confidence is written, as `<map>_confidence.tif`.
        polygons: GeoPackage for the map as polygons; None: beside the map if `maps.polygons`.
        area: Vector file; pixels outside its polygons are no data. None: all pixels.
        bands: Band name of the model by name in the files, where they differ.
    """

    maps: MapsConfig = field(default_factory=MapsConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    register: bool | None = None
    confidence: bool = False
    polygons: Path | None = None
    area: Path | None = None
    bands: Mapping[str, str] = field(default_factory=dict)


def map_files(weights: Path, files: Mapping[str, Sequence[Path]], out: Path, options: MapOptions) -> None:
    """Map one scene.

    Args:
        weights: `weights.safetensors` of a fine-tuned network.
        files: Files of each modality by name; several are stacked as bands.
        out: The map to write, a cloud-optimised GeoTIFF of class ids.
        options: How it is mapped.

    Raises:
        InputError: If files or options do not fit the network, or a file cannot be read or written.
    """
    cells = {name: ";".join(str(path.resolve()) for path in paths) for name, paths in files.items()}
    _map_rows(weights, [{"scene": "scene", **cells}], {"scene": out}, Path(), options)


def map_sheet(weights: Path, sheet: Path, folder: Path, data_root: Path, options: MapOptions) -> None:
    """Map all scenes of a sample sheet, each to `<folder>/<scene>.tif`; columns `label` and `role` are ignored.

    Args:
        weights: As for `map_files`.
        sheet: The sample sheet.
        folder: Folder for the maps.
        data_root: Where relative paths in the sheet start.
        options: How they are mapped.

    Raises:
        InputError: As for `map_files`, or if the sheet cannot be read.
    """
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            rows = [dict(row) for row in csv.DictReader(file, skipinitialspace=True)]
    except OSError as error:
        raise InputError(Problem(str(sheet), f"cannot be read ({error.strerror})", "Check the path.")) from None
    targets = {row.get("scene", ""): folder / f"{row.get('scene', '')}.tif" for row in rows}
    _map_rows(weights, rows, targets, data_root, options)


def _map_rows(
    weights: Path, rows: Sequence[dict[str, str]], targets: Mapping[str, Path], data_root: Path, options: MapOptions
) -> None:
    require_tools(["gdal_translate"])
    torch.set_num_threads(options.compute.finetune_threads)
    trained = Trained.read(weights, choose_device(options.compute))
    parent = next(iter(targets.values()), Path("map.tif")).parent
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".tmcnet_", dir=parent) as name:
        work = Path(name)
        problems: list[Problem] = []
        for row in rows:
            problems += _choose_bands(trained, row, data_root, work, options.bands)
        if not problems:
            inventory = _inspect(trained, rows, data_root, work, options.compute.raster_threads)
            problems += [p for record in inventory.records for p in _missing(weights, trained, record)]
        if problems:
            raise InputError(problems)
        for record in inventory.records:
            _map_record(weights, trained, record, work, targets[record.scene], options)


def _choose_bands(
    trained: Trained, row: dict[str, str], data_root: Path, work: Path, renamed: Mapping[str, str]
) -> Iterator[Problem]:
    """Put bands in the order of the network by the names in the files, in place; refuse others than its bands.

    Bands without names are taken in their order, as in the workflow.
    """
    for name, sensor in trained.sensors.items():
        paths = [data_root / part.strip() for part in (row.get(name) or "").split(";") if part.strip()]
        if not paths or not all(path.is_file() for path in paths):
            continue  # patterns of mosaics; missing files are reported by the inventory
        found = [
            (renamed.get(band, band).lower(), path, number)
            for path in paths
            for number, band in enumerate(band_names(path), start=1)
        ]
        names = [band for band, _, _ in found]
        wanted = [band.lower() for band in sensor.bands]
        if not any(names) or names == wanted:
            continue
        if set(wanted) - set(names):
            what = f"has the bands {names}; the network was trained on {sensor.bands}"
            mapping = " ".join(f"--band {o}={b}" for o, b in zip(names, wanted, strict=False) if o != b)
            remedy = f"If they mean the same, say so (`{mapping}`); else use a network trained on these bands."
            yield Problem(", ".join(map(str, paths)), what, remedy)
            continue
        chosen = []
        for band in wanted:
            _, path, number = found[names.index(band)]
            chosen.append(work / f"{row['scene']}_{name}_{band}.vrt")
            write_band(path, number, chosen[-1])
        row[name] = ";".join(str(path.resolve()) for path in chosen)


def _inspect(
    trained: Trained, rows: Sequence[dict[str, str]], data_root: Path, work: Path, threads: int
) -> Inventory:
    """Check all files, as the inventory of the workflow does."""
    columns = dict.fromkeys(["scene", *trained.sensors, "role", *(name for row in rows for name in row)])
    names = [name for name in columns if name != "label"]
    with (work / "scenes.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows({**row, "role": "predict"} for row in rows)
    source = SourceConfig(layout="scenes", sheet=str(work / "scenes.csv"))
    part = work / "part.json"
    inspect_scenes(source, trained.sensors, _NO_LABELS, data_root, None, part, threads)
    take_inventory([part], trained.sensors, _NO_LABELS, work / "inventory.json", work / "inventory.csv")
    return Inventory.read(work / "inventory.json")


def _missing(weights: Path, trained: Trained, record: Record) -> Iterator[Problem]:
    """Modalities that the network needs and the scene lacks."""
    only = only_modality(trained.run.network)
    tolerant = trained.settings.get("finetune", {}).get("modality_dropout", 0) > 0
    for name in trained.sensors:
        needed = name == only if only else not tolerant
        if needed and not record.images[name].files:
            remedy = f"Give its file (`--{name}`), or train with `finetune.modality_dropout` above 0."
            what = f"needs `{name}`, which scene {record.scene} lacks: it was not trained for that"
            yield Problem(str(weights), what, remedy)


def _map_record(weights: Path, trained: Trained, record: Record, work: Path, out: Path, options: MapOptions) -> None:
    """Align one scene as in training, map it and write the results."""
    align = trained.align.model_copy(update={"resolution": _resolution(trained, record)})
    if options.register is not None:
        align = align.model_copy(update={"enabled": options.register})
    scene = work / "scenes" / record.scene
    align_scene(
        work / "inventory.json",
        record.scene,
        trained.sensors,
        _NO_LABELS,
        align,
        scene,
        options.compute.raster_threads,
    )
    images = SceneImages(record.scene, {name: scene / f"{name}.tif" for name in trained.sensors})
    if options.area is not None:
        images = SceneImages(images.name, images.images, _area_mask(options.area, images, work))
    confidence = work / "confidence.tif"
    require_fit(weights, trained, [images], trained.classes)
    made = predict_map(trained, images, options.maps, trained.run.name, work / "ids.tif", confidence)
    polygons = options.polygons is not None or options.maps.polygons
    style = MapStyle(made.classes, options.maps.model_copy(update={"polygons": polygons}), made.blocks)
    style_map(work / "ids.tif", style, record.scene, out)
    if options.polygons is not None:
        options.polygons.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".gpkg").replace(options.polygons)
    if options.confidence:
        confidence.replace(confidence_of(out))


def _resolution(trained: Trained, record: Record) -> float | None:
    """Pixel size of the map in units of the CRS; None: that of the image."""
    image = record.images["optical"] if record.images["optical"].files else record.images["sar"]
    grid, chosen = image.raster.grid, trained.align.resolution
    area = pixel_area(grid)
    if trained.gsd is None or area is None:
        return chosen
    metres = math.sqrt(area) * (1 if chosen is None else chosen / grid.pixel_size)
    if 1 / MAX_GSD_RATIO <= metres / trained.gsd <= MAX_GSD_RATIO:
        return chosen
    text = f"{record.scene}: pixels of {metres:.3g} m are resampled to {trained.gsd:.3g} m, as in training"
    print(text, file=sys.stderr, flush=True)
    return grid.pixel_size * trained.gsd / math.sqrt(area)


def _area_mask(area: Path, images: SceneImages, work: Path) -> Path:
    """Rasterise polygons on the grid of a scene: 1 inside, 0 outside."""
    grid, mask = images.grid, work / f"{images.name}_area.tif"
    left, bottom, right, top = grid.bounds
    # polygons in the CRS of the scene
    run_tool("ogr2ogr", "-f", "GPKG", "-t_srs", grid.crs, work / f"{images.name}_area.gpkg", area)
    size = ("-te", left, bottom, right, top, "-ts", grid.width, grid.height)
    options = ("-q", "-burn", 1, "-init", 0, "-ot", "Byte", "-at", *size)
    run_tool("gdal_rasterize", *options, work / f"{images.name}_area.gpkg", mask)
    return mask


def describe(trained: Trained) -> dict[str, object]:
    """Everything that the file of a network says about it, as plain values."""
    inputs = {
        name: {
            "bands": {
                band: {"low": round(stats.low, 6), "high": round(stats.high, 6)}
                for band, stats in zip(sensor.bands, trained.normalisation[name], strict=True)
            },
            "kind": sensor.kind,
            "scale": sensor.scale,
            **({"clip_db": list(sensor.clip_db)} if sensor.kind == "backscatter" else {}),
            "speckle": sensor.speckle,
            "nodata": sensor.nodata,
        }
        for name, sensor in trained.sensors.items()
    }
    return {
        "run": trained.run.name,
        "network": trained.run.network,
        "classes": {c.id: f"{c.name} {c.color}" for c in trained.classes.classes},
        "inputs": inputs,
        "ground_sampling_distance_m": trained.gsd,
        "registration": trained.align.model_dump(mode="json"),
        "validation": dict(trained.metrics),
        "training": dict(trained.settings),
        "model": trained.model.model_dump(mode="json"),
        "provenance": dict(trained.provenance),
    }
