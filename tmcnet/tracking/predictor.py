"""Fine-tuned networks as MLflow models: written, and opened by `mlflow.pyfunc.load_model`.

A model is data only; the code that opens it is this module. Recorded models name the module, so it keeps its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tmcnet.dataset.normalise import Normalisation
from tmcnet.report.build import library_versions

if TYPE_CHECKING:
    from tmcnet.evaluate.trained import Trained

MODEL_FOLDER = "model"
"""Folder of the model among the artifacts of a run."""
EXAMPLE_SIDE_PX = 16


class Predictor:
    """A fine-tuned network behind MLflow's interface."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def predict(
        self,
        images: Mapping[str, npt.NDArray[np.float32]],
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow passes it
    ) -> npt.NDArray[np.float32]:
        """Predict class probabilities N x K x H x W from N x C x H x W of each modality, NaN for no data."""
        from tmcnet.evaluate.trained import predict_raw

        return predict_raw(self.trained, {name: np.asarray(image) for name, image in images.items()})


def _load_pyfunc(path: str) -> Predictor:
    """Open the weights; MLflow calls this function by its name."""
    from tmcnet.evaluate.trained import Trained

    return Predictor(Trained.read(Path(path)))


def write_mlflow_model(
    folder: Path, weights: Path, scaling: Normalisation, n_classes: int, metadata: dict[str, str]
) -> None:
    """Write a network as an MLflow model with signature, input example and metadata, into a new folder.

    The model takes N x C x H x W of each modality by name (`optical`, `sar`) as aligned scenes hold them (backscatter
    in dB, NaN for no data) and gives probabilities N x K x H x W; N, H and W are free. The example follows from the
    band statistics that it was trained with.
    """
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single = np.dtype(np.float32)
    inputs = [TensorSpec(single, (-1, len(bands), -1, -1), name) for name, bands in scaling.items()]
    outputs = [TensorSpec(single, (-1, n_classes, -1, -1), "probabilities")]
    pyfunc.save_model(
        folder,
        loader_module=__name__,
        data_path=str(weights),
        signature=ModelSignature(Schema(inputs), Schema(outputs)),
        input_example=input_example(scaling),
        pip_requirements=[f"{name}=={found}" for name, found in library_versions().items() if found],
        metadata=metadata,
    )


def input_example(scaling: Normalisation) -> dict[str, npt.NDArray[np.float32]]:
    """One small image of each modality, 1 x C x 16 x 16: a ramp over the usual range of each band."""
    ramp = np.linspace(0, 1, EXAMPLE_SIDE_PX**2, dtype=np.float32).reshape(1, 1, EXAMPLE_SIDE_PX, EXAMPLE_SIDE_PX)
    images: dict[str, npt.NDArray[np.float32]] = {}
    for name, bands in scaling.items():
        low, high = (np.array([getattr(band, end) for band in bands])[:, None, None] for end in ("low", "high"))
        images[name] = (low + (high - low) * ramp).astype(np.float32)
    return images
