"""Error of predicted values of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.model.backbone import LOW_STRIDE

MAX_QUADRATIC_ERROR = 0.1
"""Error below which the loss is quadratic; normalised values span 2 between the low and the high percentile."""


def reconstruction_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean smooth L1 error of the known cells of each image; 0 of an image without any.

    A cell of the first stage's map is compared with the mean of the 5 x 5 pixels around its centre, where all of them
    are known: speckle cannot be predicted.

    Args:
        predicted: N x bands x S/4 x S/4.
        target: N x bands x S x S, NaN where unknown.

    Returns:
        N errors.
    """
    at_least = torch.promote_types(predicted.dtype, torch.float32)
    predicted = predicted.to(at_least)
    cells = F.avg_pool2d(target.to(at_least), LOW_STRIDE + 1, LOW_STRIDE, LOW_STRIDE // 2, count_include_pad=False)
    known = ~cells.isnan()
    wanted = torch.where(known, cells, predicted.detach())
    errors = F.smooth_l1_loss(predicted, wanted, reduction="none", beta=MAX_QUADRATIC_ERROR)
    per_image: Tensor = errors.sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp_min(1)
    return per_image
