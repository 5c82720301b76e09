"""Trained networks in MLflow's form: weights with signature and input example, and the registry."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tmcnet.dataset.normalise import Normalisation
from tmcnet.tracking.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIAS = "best"
FOLDER = "model"
"""Folder of the model among the artifacts of a run."""
_EXAMPLE_SIDE = 16


def write_model(folder: Path, weights: Path, scaling: Normalisation, n_classes: int, about: dict[str, str]) -> None:
    """Write a network as a model that `mlflow.pyfunc.load_model` opens without running code of the file.

    The model takes N x C x H x W of each modality by name (`optical`, `sar`) as aligned scenes hold them (backscatter
    in dB, NaN for no data) and gives probabilities N x K x H x W; N, H and W are free.

    Args:
        folder: Folder to make.
        weights: `weights.safetensors` of a fine-tuned network.
        scaling: The band statistics it was trained with; they give the example.
        n_classes: K.
        about: What to say of the model, such as the run's name.
    """
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single = np.dtype(np.float32)
    inputs = [TensorSpec(single, (-1, len(bands), -1, -1), kind) for kind, bands in scaling.modalities.items()]
    outputs = [TensorSpec(single, (-1, n_classes, -1, -1), "probabilities")]
    pyfunc.save_model(
        folder,
        loader_module="tmcnet.tracking.predictor",
        data_path=str(weights),
        signature=ModelSignature(Schema(inputs), Schema(outputs)),
        input_example=input_example(scaling),
        pip_requirements=requirements(),
        metadata=about,
    )


def input_example(scaling: Normalisation) -> dict[str, npt.NDArray[np.float32]]:
    """One small image of each modality, 1 x C x 16 x 16: a ramp over the usual range of each band."""
    ramp = np.linspace(0, 1, _EXAMPLE_SIDE**2, dtype=np.float32).reshape(1, 1, _EXAMPLE_SIDE, _EXAMPLE_SIDE)

    def image(kind: str) -> npt.NDArray[np.float32]:
        bands = scaling.modalities[kind]
        low, high = (np.array([getattr(b, end) for b in bands])[:, None, None] for end in ("low", "high"))
        values: npt.NDArray[np.float32] = (low + (high - low) * ramp).astype(np.float32)
        return values

    return {kind: image(kind) for kind in scaling.modalities}


@cache
def requirements() -> list[str]:
    """The installed versions of what this project depends on."""
    named = importlib.metadata.requires("tmcnet") or []
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in named if "extra ==" not in text]
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


@cache
def environment() -> str:
    """Every installed package with its version, one a line, in the form of pip's requirement files."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


def register_best(client: MlflowClient, name: str, metric: str, runs: Iterable[tuple[Record, str]]) -> str | None:
    """Give the network with the best validation score the alias `best` in the model registry.

    The test part has no say in it. A run that was registered before keeps its version.

    Args:
        client: The tracking server.
        name: Name of the registered model.
        metric: The validation score to compare.
        runs: Records with the ids of their runs.

    Returns:
        The version, or None where no network has a validation score.
    """
    scored: list[tuple[float, str]] = []
    for record, run_id in runs:
        values = [p.value for p in record.points if p.name == f"validation/{metric}"]
        if record.weights is not None and values:
            scored.append((values[0], run_id))
    if not scored:
        return None
    _, best = max(scored, key=lambda pair: pair[0])
    if not list(client.search_registered_models(filter_string=f"name = '{name}'")):
        client.create_registered_model(name)
    versions = {v.run_id: v for v in client.search_model_versions(f"name = '{name}'")}
    version: Any = versions.get(best) or client.create_model_version(name, f"runs:/{best}/{FOLDER}", best)
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)
