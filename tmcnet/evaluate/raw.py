"""Class probabilities of raw arrays, for callers that know no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tmcnet.dataset.normalise import FloatArray
from tmcnet.evaluate.predict import Probabilities, probabilities
from tmcnet.evaluate.trained import Trained


def predict_raw(trained: Trained, images: Mapping[str, FloatArray]) -> Probabilities:
    """Class probabilities of images as aligned scenes hold them: backscatter in dB, NaN for no data.

    Args:
        trained: The network, with the scaling that its inputs need.
        images: N x C x H x W of each modality by name.

    Returns:
        N x K x H x W.
    """
    scaling = trained.normalisation
    scaled = {
        name: torch.from_numpy(np.stack([scaling.apply(image, name) for image in images[name]])) for name in scaling
    }
    found: Probabilities = probabilities(trained.network, scaled).cpu().numpy()
    return found
