"""The command `tmcnet`: use a trained network, and check or start a config, without running the workflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import yaml

from tmcnet.errors import InputError, Problem

if TYPE_CHECKING:
    from tmcnet.config import Config

MODEL = "models/<run>/model.safetensors, or weights of fine-tuning"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if it succeeded, 1 if the input has errors; wrong arguments end the program with 2.
    """
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except InputError as error:
        print(f"The input has errors:\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        remedy = "Check the path, its permissions and the space on the disk."
        print(f"{error.filename}: {error.strerror}. {remedy}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tmcnet", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_predict(commands.add_parser("predict", help="map new scenes with a trained network"))

    def add(name: str, purpose: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")

    info = add("info", "print what the file of a network says about it")
    info.add_argument("model", type=Path, help=MODEL)
    info.set_defaults(run=_info)
    export = add("export", "write a network as ONNX, with a model card")
    export.add_argument("model", type=Path, help=MODEL)
    export.add_argument("--out", type=Path, required=True, help="folder for model.onnx and card.json")
    export.add_argument(
        "--raw",
        nargs="?",
        const="training",
        choices=("training", "linear", "amplitude", "db"),
        help="take the numbers of the files and convert them in the model: scale factor, SAR to dB from the scale "
        "of training or the one given. Default: values as in aligned scenes, SAR in dB",
    )
    export.set_defaults(run=_export)
    check = add("check", "check a config and its sample sheet without running anything")
    check.add_argument("config", type=Path, nargs="+", help="YAML files; later ones override earlier ones")
    check.add_argument("--data-root", help="replaces the config key `data_root`")
    check.set_defaults(run=_check)
    init = add("init", "write a config and a sample sheet for the rasters in a folder")
    init.add_argument("folder", type=Path, help="folder with GeoTIFFs or products, and label files")
    init.set_defaults(run=_init)
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    from tmcnet.config import MapsConfig
    from tmcnet.config.results import TestTime

    parser.description = "Register the images of a scene, map it as the workflow would, and write a GeoTIFF."
    parser.add_argument("model", type=Path, help=MODEL)
    stacked = "one file, or several to stack as bands"
    for name, text in {"optical": stacked, "sar": stacked, "dem": "for networks with the modality `dem`"}.items():
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    parser.add_argument(
        "--image", action="append", default=[], metavar="NAME=FILE", help="file of any other modality, by its name"
    )
    parser.add_argument("--out", type=Path, required=True, help="map to write; with --sheet a folder")
    parser.add_argument("--sheet", type=Path, help="sample sheet (CSV) with many scenes, in place of single files")
    parser.add_argument("--data-root", type=Path, default=Path(), help="where paths in the sheet start (default: .)")
    parser.add_argument("--confidence", action="store_true", help="also write <map>_confidence.tif, 0 to 100")
    parser.add_argument("--polygons", type=Path, help="also write the map as polygons to this GeoPackage")
    parser.add_argument(
        "--register",
        action=argparse.BooleanOptionalAction,
        help="register SAR to optical (default: as for the training scenes)",
    )
    parser.add_argument("--test-time", choices=get_args(TestTime), default="none", help="average over copies")
    parser.add_argument("--aoi", type=Path, help="vector file; pixels outside its polygons become no data")
    default = MapsConfig()
    overlap_help = "in pixels (default: what the network needs for maps without seams)"
    parser.add_argument("--overlap", type=int, help=overlap_help)
    parser.add_argument("--window", type=int, default=default.window, help=f"in pixels (default: {default.window})")
    parser.add_argument(
        "--band", action="append", default=[], metavar="FILE=MODEL", help="a band of the files is this band, hh=vv"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.set_defaults(run=_predict)


def _predict(chosen: argparse.Namespace) -> None:
    from tmcnet.config import load_section
    from tmcnet.config.results import ComputeConfig, MapsConfig
    from tmcnet.evaluate.new_scenes import MapOptions, map_files, map_sheet

    if chosen.overlap is not None and 2 * chosen.overlap > chosen.window:
        what = f"is {chosen.overlap}, more than half of the window of {chosen.window}"
        raise InputError(Problem("--overlap", what, "Choose a smaller one, or a larger `--window`."))
    maps = {"window": chosen.window, "overlap": chosen.overlap, "test_time": chosen.test_time}
    threads = {"finetune_threads": chosen.threads, "raster_threads": chosen.threads}
    options = MapOptions(
        load_section(MapsConfig, maps),
        load_section(ComputeConfig, threads),
        chosen.register,
        chosen.confidence,
        chosen.polygons,
        chosen.aoi,
        _pairs("--band", chosen.band),
    )
    files = {"optical": chosen.optical, "sar": chosen.sar, "dem": chosen.dem}
    files |= {name: [Path(path)] for name, path in _pairs("--image", chosen.image).items()}
    files = {name: paths for name, paths in files.items() if paths}
    if chosen.sheet is not None and (files or chosen.polygons):
        raise InputError(Problem("--sheet", "is given together with files of one scene", "Give either of them."))
    if chosen.sheet is not None:
        map_sheet(chosen.model, chosen.sheet, chosen.out, chosen.data_root, options)
        return
    missing = [str(path) for paths in files.values() for path in paths if not path.is_file()]
    if missing or not files:
        what = f"no such file: {', '.join(missing)}" if missing else "no image is given"
        raise InputError(Problem("tmcnet predict", what, "Give `--optical` and `--sar`, or `--sheet`."))
    map_files(chosen.model, files, chosen.out, options)
    print(chosen.out)


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    wrong = [value for value in values if value.count("=") != 1]
    if wrong:
        raise InputError(Problem(option, f"cannot read {', '.join(wrong)}", f"Write `{option} name=value`."))
    return dict(value.split("=") for value in values)


def _info(chosen: argparse.Namespace) -> None:
    from tmcnet.evaluate.new_scenes import describe_network
    from tmcnet.evaluate.trained import Trained

    print(yaml.safe_dump(describe_network(Trained.read(chosen.model)), sort_keys=False), end="")


def _export(chosen: argparse.Namespace) -> None:
    from tmcnet.evaluate.export import export_model

    scale = None if chosen.raw == "training" else chosen.raw
    export_model(chosen.model, chosen.out, raw=chosen.raw is not None, scale=scale)
    print(chosen.out / "model.onnx")


def _check(chosen: argparse.Namespace) -> None:
    from tmcnet.config import load_overlays, missing_weights
    from tmcnet.raster.inventory.cautions import cautions
    from tmcnet.raster.inventory.sample_sheet import is_vector
    from tmcnet.raster.inventory.sources import check_outside, find_entries
    from tmcnet.readers import read_record

    config = load_overlays(chosen.config, {"data_root": chosen.data_root} if chosen.data_root else {})
    entries = find_entries(config.source, Path(config.data_root), config.sensors)
    check_outside(entries, Path(config.results_dir))
    problems = missing_weights(config, of_maps=False)
    problems += [p for name, path in config.maps.models.items() for p in _model_problems(name, Path(path), config)]
    if any(is_vector(path) for entry in entries for path in entry.label):
        from tmcnet.raster.inventory.inventory import vector_label_problems

        problems += vector_label_problems(entries, config)
    if problems:
        raise InputError(problems)
    roles = [entry.role for entry in entries]
    kind = "tiles" if config.source.layout in ("tiles", "seed") else "scenes"
    print(f"Number of {kind}: {len(entries)} ({roles.count('train')} to learn from, {roles.count('predict')} to map)")
    runs = len(config.runs) if "train" in roles else 0
    models = f", networks from files: {', '.join(config.maps.models)}" if config.maps.models else ""
    print(f"Number of runs: {runs} (preset `{config.preset}`){models}, results in {config.results_dir}")
    inventory = Path(config.results_dir, "inventory.json")
    for caution in cautions(read_record(inventory)["entries"] if inventory.is_file() else [], config) if runs else ():
        print(f"Warning: {caution}")


def _model_problems(name: str, path: Path, config: Config) -> Iterator[Problem]:
    """Reasons why a network of `maps.models` cannot map the scenes of a config."""
    from tmcnet.evaluate.trained import Trained

    where = f"config key `maps.models.{name}`"
    if not path.is_file():
        yield Problem(where, f"there is no file {path}", f"Give {MODEL}.")
        return
    trained, classes = Trained.read(path), [c.name for c in config.labels.classes]
    if classes and trained.classes.names != classes:
        what = f"{path} was trained on the classes {trained.classes.names}; `labels.classes` has {classes}"
        yield Problem(where, what, "Correct the names in `labels.classes`, or leave out `labels`.")
    for modality, sensor in trained.sensors.items():
        bands = config.sensors[modality].bands if modality in config.sensors else []
        if len(bands) != len(sensor.bands):
            what = f"{path} was trained on the bands {sensor.bands} of `{modality}`; `sensors.{modality}` has {bands}"
            yield Problem(where, what, "Use a network that was trained on the bands of these scenes.")


def _init(chosen: argparse.Namespace) -> None:
    from tmcnet.raster.inventory.starter import write_starter

    for path in write_starter(chosen.folder):
        print(path)


if __name__ == "__main__":
    sys.exit(main())
