"""Read the config and say in one message everything that is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tmcnet.config.data import SensorConfig, SensorsConfig
from tmcnet.config.root import Config
from tmcnet.errors import InputError, Problem


def load(values: Mapping[str, Any]) -> Config:
    """Check a config mapping and return it typed.

    Args:
        values: The merged config as plain mappings, lists and scalars.

    Raises:
        InputError: If a key is unknown or missing, or a value is out of its limits; names every such key.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise InputError([_problem(dict(e)) for e in error.errors()]) from None


def load_files(paths: Sequence[Path | str]) -> Config:
    """Read YAML files, each laid over the ones before, as Snakemake's `--configfile` does.

    Raises:
        InputError: If a file cannot be read, or the merged config is wrong.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _lay_over(merged, _read(Path(path)))
    return load(merged)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror})", "Check the path.")) from None
    except yaml.YAMLError as error:
        raise InputError(Problem(str(path), f"is not valid YAML: {error}", "Mend the line named above.")) from None
    if not isinstance(values, dict):
        raise InputError(Problem(str(path), "holds no config keys", "Start from config/config.yaml."))
    return values


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
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
        return Problem(f"config key `{key}`", "is missing", "config/README.md says what it holds.")
    message = str(error["msg"]).removeprefix("Value error, ")
    found = "" if isinstance(error["input"], dict | BaseModel) else f" (found {error['input']!r})"
    return Problem(f"config key `{key}`", f"{message}{found}", "config/README.md describes the key and its limits.")


def _keys_at(location: Sequence[str | int]) -> list[str]:
    model: Any = Config
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _section_of(model.model_fields[str(part)].annotation)
        elif model is SensorsConfig:
            model = SensorConfig
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_of(annotation: Any) -> Any:  # noqa: ANN401 - annotations are of any kind
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_section_of(a) for a in get_args(annotation)]
    return next((a for a in inner if a is not None), None)
