"""Class probabilities of raw arrays, for callers that know no torch."""

from __future__ import annotations

import numpy as np
import torch

from tmcnet.dataset.normalise import FloatArray
from tmcnet.evaluate.predict import Probabilities, probabilities
from tmcnet.evaluate.trained import Trained


def predict_raw(trained: Trained, optical: FloatArray, sar: FloatArray) -> Probabilities:
    """Class probabilities of images as aligned scenes hold them: backscatter in dB, NaN for no data.

    Args:
        trained: The network, with the scaling that its inputs need.
        optical: N x Co x H x W.
        sar: N x Cs x H x W.

    Returns:
        N x K x H x W.
    """
    scaling = trained.normalisation
    images = (
        torch.from_numpy(np.stack([scaling.apply(image, "optical") for image in optical])),
        torch.from_numpy(np.stack([scaling.apply(image, "sar") for image in sar])),
    )
    found: Probabilities = probabilities(trained.network, *images).cpu().numpy()
    return found
