"""The whole config as one typed model, and how it is read and checked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, RootModel, ValidationError, field_validator

from tmcnet.config.base import REQUIRED, Section, only_modality
from tmcnet.config.data import AlignConfig, LabelsConfig, NormaliseConfig, SensorsConfig, SourceConfig, TilesConfig
from tmcnet.config.pretraining import PretrainConfig
from tmcnet.config.results import MAP_ENDINGS, ComputeConfig, EvaluateConfig, MapsConfig, ReportConfig, TrackingConfig
from tmcnet.config.splits import SplitsConfig
from tmcnet.config.training import (
    RANDOM_START,
    SELF_TRAINING,
    FinetuneConfig,
    ModelConfig,
    Run,
    expand_sweep,
    self_training_round,
)
from tmcnet.errors import InputError, Problem

S = TypeVar("S", bound=Section)
_MAX_NAME = 255
"""Bytes of a file name on all usual file systems."""
_OF_DEMO_IMAGES = (("finetune", "covered_copies"), ("evaluate", "groups"))
"""Keys of the demo that belong to its images, not to its sizes: they do not count for other images."""
_MAX_FOUND = 200
"""Characters of a wrong value in a message."""


class Config(Section):
    """Everything a run depends on: the only place for defaults, units and limits."""

    preset: Literal["demo", "quick", "standard", "full"] = "standard"
    """Settings below those of the user. `demo`: config/config.yaml, the default of a config without `sensors`.
    `quick`: a small network and short trainings, for a first look. `standard`: one good map. `full`: the published
    network and a long schedule, for GPUs."""
    name: str = Field("demo", pattern=r"^[\w-]+$")
    """Name of the data set and of the MLflow experiment."""
    results_dir: str = Field("results", min_length=1)
    """Folder for all outputs."""
    data_root: str = Field("data", min_length=1)
    """Folder that paths of the imagery are relative to."""
    source: SourceConfig = SourceConfig()
    sensors: SensorsConfig
    """Modalities by name: `optical`, `sar`, others such as `dem`."""
    labels: LabelsConfig = LabelsConfig()
    align: AlignConfig = AlignConfig()
    tiles: TilesConfig = TilesConfig()
    splits: SplitsConfig = SplitsConfig()
    normalise: NormaliseConfig = NormaliseConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    maps: MapsConfig = MapsConfig()
    tracking: TrackingConfig = TrackingConfig()
    report: ReportConfig = ReportConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("results_dir", "data_root")
    @classmethod
    def _plain(cls, path: str) -> str:
        """`results/`, `./results` and `$PWD/results` are `results`: to Snakemake, each spelling is another file."""
        return os.path.normpath(path).removeprefix(f"{Path.cwd()}{os.sep}")

    @property
    def runs(self) -> list[Run]:
        """All runs of the sweep."""
        return expand_sweep(self.finetune.sweep)

    @property
    def map_runs(self) -> list[Run]:
        """The runs that map whole scenes: for each seed the first draw of the labels."""
        drawn: dict[Run, Run] = {}
        for run in expand_sweep([part for part in self.finetune.sweep if part.maps]):
            if run.seed in self.maps.seeds:
                drawn.setdefault(replace(run, draw=1), run)
        runs = list(drawn.values())
        if self.maps.fractions:
            return [run for run in runs if run.budget.fraction in self.maps.fractions]
        largest = {n: max(r.budget for r in runs if r.network == n) for n in {r.network for r in runs}}
        return [run for run in runs if run.budget == largest[run.network]]

    @property
    def scores_withheld(self) -> bool:
        """Whether networks of several modalities are also scored with each of them hidden."""
        given = self.evaluate.withheld
        return self.finetune.modality_dropout > 0 if given is None else given

    def _problems(self) -> Iterator[str]:
        for check in (_source_problems, _modality_problems, _sweep_problems, _map_problems, _size_problems):
            yield from check(self)
        yield from (*_device_problems(self), *_folder_problems(self))


def load(values: Mapping[str, Any]) -> Config:
    """Check the values of a whole config; an InputError lists all unknown, missing and wrong keys."""
    return load_section(Config, values)


def load_overlays(paths: Sequence[Path | str], values: Mapping[str, Any] | None = None) -> Config:
    """Lay YAML files and then `values` over the preset, as workflows do; each overrides keys of those before.

    Raises:
        InputError: If a file cannot be read, or the merged config has errors.
    """
    overlay: dict[str, Any] = {}
    for path in paths:
        _update(overlay, _read(Path(path)))
    _update(overlay, values or {})
    return load(over_preset(overlay))


def over_preset(overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the keys that a user sets over those of the preset; InputError if there is no such preset."""
    name = overlay.get("preset") or ("standard" if overlay.get("sensors") else "demo")
    here = Path(__file__).parent
    path = here.parents[1] / "config" / "config.yaml" if name == "demo" else here / "presets" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(["demo", *sorted(file.stem for file in (here / "presets").glob("*.yaml"))])
        raise InputError(Problem("config key `preset`", f"is `{name}`", f"It is one of {known}."))
    whole = _read(path)
    source = overlay.get("source")
    if name == "demo" and isinstance(source, dict) and source.get("layout", "demo") != "demo":
        for section, key in _OF_DEMO_IMAGES:
            whole.get(section, {}).pop(key, None)
    _update(whole, overlay)
    return whole


def missing_weights(config: Config, *, of_maps: bool = True) -> list[Problem]:
    """Files of weights that the config names and that do not exist; `of_maps`: also those of `maps.models`."""
    pretrain, problems = config.pretrain, []
    named: dict[str, Mapping[str, str | None]] = {
        "pretrain.weights": pretrain.weights,
        "pretrain": {"initial_weights": pretrain.initial_weights},
        "maps.models": config.maps.models if of_maps else {},
    }
    for key, files in named.items():
        missing = [f"`{n}`: {path}" for n, path in files.items() if path is not None and not Path(path).is_file()]
        if missing:
            remedy = "Correct the path; relative paths start in the working directory of Snakemake."
            problems.append(Problem(f"config key `{key}`", f"no such file: {', '.join(missing)}", remedy))
    return problems


def check_config_files(paths: Iterable[Path | str]) -> None:
    """Check what Snakemake accepts in silence when it reads config files, such as a key that is given twice.

    Raises:
        InputError: If a file cannot be read or is no mapping with unique keys.
    """
    for path in paths:
        _read(Path(path))


def load_section(section: type[S], values: Mapping[str, Any]) -> S:
    """Check the values of one section.

    Raises:
        InputError: If keys are unknown or out of their limits; lists all of them.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise InputError([_problem(dict(e)) for e in error.errors()]) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror})", "Check the path.")) from None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start})"
        raise InputError(Problem(str(path), what, "Save it as UTF-8.")) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = str(error).replace('in "<unicode string>", ', "in ")
        if isinstance(error, RecursionError):  # Python's words depend on the call at which the stack is full
            where = "maximum recursion depth exceeded while calling a Python object"
        what = f"is not valid YAML: {' '.join(where.split())}"
        raise InputError(Problem(str(path), what, "Correct this line.")) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(Problem(str(path), "holds no config keys", "Start from config/config.yaml."))
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, with an error for a key that is given twice: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key.value}` is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _update(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _update(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _problem(error: dict[str, Any]) -> Problem:
    location = error["loc"]
    key = ".".join(str(part) for part in location) or "config"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), _keys_at(location[:-1]), n=1)
        hint = f"Did you mean `{close[0]}`?" if close else "Remove it; config/README.md lists every key."
        return Problem(f"config key `{key}`", "is unknown", hint)
    if error["type"] == "missing":
        return Problem(f"config key `{key}`", "is missing", "config/README.md describes it.")
    if error["type"] in ("model_type", "dict_type") and error["input"] is None:
        return Problem(f"config key `{key}`", "has no keys below it", "Remove the line, or indent keys below it.")
    message = str(error["msg"]).removeprefix("Value error, ")
    hidden = isinstance(error["input"], dict | BaseModel) or location == ("tracking", "uri")  # may hold a password
    found = "" if hidden else f" (found {_shortened(repr(error['input']))})"
    where = f"config key `{key}`" if location else "config"
    return Problem(where, f"{message}{found}", "config/README.md describes the key and its limits.")


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_FOUND else f"{text[:_MAX_FOUND]}..."


def _keys_at(location: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] | None = Config
    for part in location:
        if model is not None and part in model.model_fields:
            model = section_of(model.model_fields[str(part)].annotation)
    return [] if model is None else list(model.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - annotations are of any kind
    """The section that a key holds, also one of a list or by name; None for other keys."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        annotation = annotation.model_fields["root"].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def _source_problems(config: Config) -> Iterator[str]:
    if not config.labels.classes and config.source.layout == "demo":
        yield "`labels.classes` must list the classes"
    if config.splits.given_fractions and config.source.layout != "seed":
        yield "`splits.given_fractions` needs a source of layout `seed`, whose lists name the fractions"


def _modality_problems(config: Config) -> Iterator[str]:
    source, known = config.source, list(config.sensors)
    others, patterns = list(config.sensors.others), [name for name in source.patterns if name not in REQUIRED]
    unknown = [name for name in patterns if name not in known]
    for name in unknown:
        close = difflib.get_close_matches(name, [*SourceConfig.model_fields, *known], n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        yield f"`source.{name}` is unknown: `sensors` lists the modalities {known}{hint}"
    if others and source.layout in ("demo", "seed"):
        yield f"`sensors` has {others}, but layout `{source.layout}` has optical, SAR and label only"
    elif source.layout in ("scenes", "tiles") and source.sheet is None:
        missing = [name for name in others if name not in patterns]
        if missing:
            yield f"`source` has no pattern for {missing}, which `sensors` lists"
    for run in config.finetune.with_needed(config.runs):
        modality = only_modality(run.network)
        if modality is not None and modality not in known:
            yield f"`finetune` names the network `{run.network}`; the modalities are {known}"
    if config.finetune.covered_copies and not config.sensors.reflectance:
        yield "`finetune.covered_copies` covers images of kind `reflectance`; no modality of `sensors` has this kind"
    for name, group in config.evaluate.groups.items():
        if group.modality not in known:
            yield f"`evaluate.groups.{name}.modality` is `{group.modality}`; the modalities are {known}"
        elif bands := [band for band in group.above if band not in config.sensors[group.modality].bands]:
            has = config.sensors[group.modality].bands
            yield f"`evaluate.groups.{name}.above` names {bands}; the bands of `{group.modality}` are {has}"
    for name, method in config.pretrain.methods.items():
        if method.modality not in ("both", *known):
            yield f"`pretrain.methods.{name}.modality` is `{method.modality}`; it is `both` or one of {known}"


def _device_problems(config: Config) -> Iterator[str]:
    devices, sizes = config.compute.processes, {"pretrain": config.pretrain.batch_size}
    if config.compute.finetune_shared:
        sizes["finetune"] = config.finetune.batch_size
    for name, size in sizes.items():
        if size % devices:
            wanted = f"a multiple of `compute.nodes` times `compute.devices` ({devices})"
            yield f"`{name}.batch_size` ({size}) must be {wanted}"


def _sweep_problems(config: Config) -> Iterator[str]:
    known = sorted({RANDOM_START, *config.pretrain.methods, *config.pretrain.weights})
    for run in config.runs:
        if run.method not in (*known, *SELF_TRAINING):
            yield f"`finetune.sweep` names the method `{run.method}`; known are {[*known, *SELF_TRAINING]}"
        elif self_training_round(run.method) and config.finetune.self_training.start not in known:
            yield f"`finetune.self_training.start` is `{config.finetune.self_training.start}`; known are {known}"
        for key, amount, of in (
            ("fractions", run.budget.fraction, "% of the labels"),
            ("points", run.budget.points, "points of each class"),
        ):
            given = getattr(config.splits, key)
            if amount is not None and amount not in given:
                yield f"`finetune.sweep` needs {amount:g} {of}; `splits.{key}` has {given}"
        if not 1 <= run.draw <= config.splits.subsets:
            needed = f"`finetune.sweep` needs draw {run.draw} of the labels (from its `subsets`, else its seeds)"
            yield f"{needed}; `splits.subsets` is {config.splits.subsets}"
    probe, given = config.pretrain.probe, config.splits.fractions
    if probe.every is not None and probe.fraction not in given:
        yield f"`pretrain.probe` needs {probe.fraction:g} % of the labels; `splits.fractions` has {given}"


def _map_problems(config: Config) -> Iterator[str]:
    runs = [run.name for run in config.runs]
    for model in config.maps.models:
        if model in runs:
            yield f"`maps.models` has the name `{model}`, which a run of `finetune.sweep` already has"
        taken = [name for name in (*runs, *config.maps.models) for end in MAP_ENDINGS if model == f"{name}{end}"]
        if taken:
            yield f"`maps.models` has the name `{model}`, which is reserved for a map of `{taken[0]}`"
    mapping = expand_sweep([part for part in config.finetune.sweep if part.maps])
    if mapping and not config.map_runs:
        given = f"`maps.seeds` {config.maps.seeds}"
        given += f" and `maps.fractions` {config.maps.fractions}" * bool(config.maps.fractions)
        seeds, fractions = sorted({r.seed for r in mapping}), sorted({r.budget.fraction or 0 for r in mapping} - {0})
        what = f"{given} select no run of `finetune.sweep` for maps"
        yield f"{what}; it has the seeds {seeds} and fractions {fractions}"


def _folder_problems(config: Config) -> Iterator[str]:
    for key in ("results_dir", "data_root"):
        path = getattr(config, key)
        if re.search(r"[\x00-\x1f{}]", path):
            yield f"`{key}` must be a path without braces and control characters"
        elif any(len(part.encode()) > _MAX_NAME for part in Path(path).parts):
            yield f"`{key}` has a name of more than {_MAX_NAME} bytes"
        elif path.startswith("~"):
            yield f"`{key}` begins with `~`, which is not replaced: write the whole path"
        elif Path(path).is_file():
            yield f"`{key}` must be a folder, but {path} is a file"
    if config.results_dir == ".":
        yield "`results_dir` must be a folder of its own, not the working directory"


def _size_problems(config: Config) -> Iterator[str]:
    maps, tile = config.maps, config.tiles.size
    if maps.overlap is not None and maps.overlap * 2 > maps.window:
        yield f"`maps.overlap` ({maps.overlap}) must be at most half of `maps.window` ({maps.window})"
    if config.source.layout not in ("demo", "scenes"):
        return
    by_pixels = config.splits.method == "blocks" and config.splits.block_metres is None
    if by_pixels and config.splits.block_size < tile:
        yield f"`splits.block_size` ({config.splits.block_size}) must be at least `tiles.size` ({tile})"
    if config.pretrain.methods and config.pretrain.crop_size > tile:
        yield f"`pretrain.crop_size` ({config.pretrain.crop_size}) must not exceed `tiles.size` ({tile})"
    if config.finetune.crop_size > tile:
        yield f"`finetune.crop_size` ({config.finetune.crop_size}) must not exceed `tiles.size` ({tile})"
