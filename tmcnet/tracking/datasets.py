"""The lists of tiles that a run read, as MLflow's data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmcnet.config import Config
from tmcnet.hashing import bytes_digest
from tmcnet.report.files import read_json
from tmcnet.tracking.records import Record

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_CONTEXT = "mlflow.data.context"


def dataset_inputs(results: Path, config: Config, record: Record) -> Iterator[DatasetInput]:
    """What a run learnt from, chose its network on and was scored on.

    A data set is called by its list, such as `trainR5_s2`. Its digest follows from the names of the tiles and from
    the hash of the index, which stands for their pixels.

    Args:
        results: The results folder, for `splits/manifest.json`.
        config: Names the place of the data, bands and classes.
        record: The run.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = read_json(results / "splits" / "manifest.json")
    for purpose, name in record.lists.items():
        told = manifest.get("lists", {}).get(name)
        if not told:
            continue
        stands_for = f"{told.get('sha256')} {manifest.get('index_sha256')}"
        content = Dataset(
            name=f"{config.name} {name}",
            digest=bytes_digest(stands_for)[:16],
            source_type="local",
            source=json.dumps({"uri": config.data_root, "list": f"splits/{name}_RGB.txt"}),
            schema=_schema(config),
            profile=json.dumps({"tiles": told.get("n"), "class_shares": told.get("class_shares")}),
        )
        yield DatasetInput(content, [InputTag(_CONTEXT, purpose)])


def _schema(config: Config) -> str:
    """Bands, classes and types, in the form that MLflow shows."""
    size, sensors = config.tiles.size, config.sensors
    bands = {name: sensor.bands for name, sensor in sensors.items()}
    images = [_tensor(f"{kind} ({', '.join(names)})", "float32", len(names), size) for kind, names in bands.items()]
    classes = ", ".join(c.name for c in config.labels.classes)
    label = _tensor(f"label ({classes})" if classes else "label", "uint8", 1, size)
    return json.dumps({"mlflow_tensorspec": {"features": json.dumps(images), "targets": json.dumps([label])}})


def _tensor(name: str, kind: str, channels: int, size: int) -> dict[str, Any]:
    return {"type": "tensor", "name": name, "tensor-spec": {"dtype": kind, "shape": [channels, size, size]}}
