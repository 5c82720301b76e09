"""How `mlflow.pyfunc.load_model` opens a network of this project: the weights are data, this module is the code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tmcnet.evaluate.trained import Trained


class Predictor:
    """A fine-tuned network behind MLflow's interface.

    Args:
        trained: The network with the scaling of its inputs.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def predict(
        self,
        images: Mapping[str, npt.NDArray[np.float32]],
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow passes it
    ) -> npt.NDArray[np.float32]:
        """Class probabilities N x K x H x W.

        Args:
            images: N x C x H x W of each modality (`optical`, `sar` and further ones), NaN for no data.
            params: MLflow's own; there are none.
        """
        from tmcnet.evaluate.raw import predict_raw

        return predict_raw(self.trained, {kind: np.asarray(image) for kind, image in images.items()})


def _load_pyfunc(path: str) -> Predictor:
    """Called by MLflow with the place of the weights."""
    from tmcnet.evaluate.trained import Trained

    return Predictor(Trained.read(Path(path)))
