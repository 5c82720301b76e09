"""Losses of semantic segmentation.

All ignore void pixels in numerator and denominator, are 0 with zero gradient if no pixel is labelled, and are
computed in single precision in any number format of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import IGNORE, FinetuneSettings

FOCAL_GAMMA = 2.0
"""Exponent of the focal loss (Lin et al. 2017, section 4.1)."""


def segmentation_loss(logits: Tensor, label: Tensor, weights: Tensor, config: FinetuneSettings) -> Tensor:
    """Return the loss that `config.loss` names, a float32 scalar of at least 0.

    `logits` are N x K x H x W, `label` is N x H x W int64 with `IGNORE` for void, `weights` are K, one for each
    class; Dice takes none.
    """
    if config.loss == "focal":
        return focal(logits, label, weights)
    if config.loss == "dice":
        return dice(logits, label)
    entropy = cross_entropy(logits, label, weights)
    return entropy + dice(logits, label) if config.loss == "cross_entropy_dice" else entropy


def cross_entropy(logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy over labelled pixels, each weighted by its class; arguments as of `segmentation_loss`."""
    total = F.cross_entropy(logits.float(), label, weight=weights, ignore_index=IGNORE, reduction="sum")
    return _share(total, weights[label[label != IGNORE]].sum())


def focal(logits: Tensor, label: Tensor, weights: Tensor, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Mean of -(1 - p)^gamma log p over labelled pixels, each weighted by its class; p is that of the true class.

    Lin et al. (2017), "Focal loss for dense object detection", equation 5, with the weights as alpha. It is divided
    by the sum of the weights of the labelled pixels (there: by the number of objects), so that gamma 0 gives
    `cross_entropy`. Arguments as of `segmentation_loss`; gamma is at least 0.
    """
    entropy = F.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="none")
    known = label != IGNORE
    mass = weights[label.where(known, 0)] * known
    # below gamma 1 the slope of the power is infinite at 0, where p rounds to 1
    missed = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).eps)
    return _share((mass * missed**gamma * entropy).sum(), mass.sum())


def dice(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over classes of 1 - 2 sum(p t) / (sum(p^2) + sum(t^2)), the sums over the labelled pixels of the batch.

    Milletari et al. (2016), "V-Net", section 3, for each class with p its probability and t its truth (0 or 1). Only
    classes that the truth of the batch names count. They count alike, however many pixels they have; class weights
    would make up for their frequency a second time, so there are none. Arguments as of `segmentation_loss`.
    """
    classes = torch.arange(logits.shape[1], device=label.device).view(1, -1, 1, 1)
    truth = (label[:, None] == classes).float()
    probability = logits.float().softmax(dim=1) * (label != IGNORE)[:, None]
    pixels = truth.sum(dim=(0, 2, 3))
    both = (probability * truth).sum(dim=(0, 2, 3))
    # at least 1 for every class that counts
    either = (probability.square().sum(dim=(0, 2, 3)) + pixels).clamp_min(1)
    present = (pixels > 0).float()
    return (present * (1 - 2 * both / either)).sum() / present.sum().clamp_min(1)


def _share(total: Tensor, mass: Tensor) -> Tensor:
    """A quotient that is 0 where both are."""
    return total / mass.clamp_min(torch.finfo(mass.dtype).tiny)
