"""NT-Xent and InfoNCE, and the sums that all contrastive losses share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Masses = tuple[Tensor, Tensor]
"""Sums of similarities for each row of view 1 and of view 2, N each."""
EPS = 1e-8
"""Smallest length of an embedding, and the summand of the denominator in place of the positive."""


def unit_rows(embeddings: Sequence[Tensor]) -> list[Tensor]:
    """Scale rows to length 1, in float32 at least: sums of exponentials lose too much in half precision.

    Raises:
        ValueError: If the embeddings have not all the same N x C, or N is less than two.
    """
    first = embeddings[0]
    if len({x.shape for x in embeddings}) > 1 or first.ndim != 2:
        raise ValueError(f"all embeddings must have the same N x C, not {[tuple(x.shape) for x in embeddings]}")
    if len(first) < 2:
        raise ValueError("the loss compares places with each other and needs at least two")
    at_least = torch.promote_types(first.dtype, torch.float32)
    return [F.normalize(x.to(at_least), dim=1, eps=EPS) for x in embeddings]


def other_places(n: int, groups: Tensor | None, device: torch.device) -> Tensor:
    """Return a N x N mask of the rows that are each other's negatives: those of different groups or places."""
    if groups is None:
        groups = torch.arange(n, device=device)
    return groups[:, None] != groups[None, :]


def shifted_exp(cosine: Tensor, temperature: float) -> Tensor:
    """exp((cosine - 1) / temperature): the similarity up to a factor that cancels; at most 1, so it is finite."""
    return torch.exp((cosine - 1) / temperature)


def base_masses(u: Tensor, v: Tensor, negatives: Tensor, temperature: float) -> Masses:
    """Sum the similarities of each row of Z = [u; v] with the rows of other places in both views."""
    uu, vv, uv = (shifted_exp(x @ y.T, temperature) * negatives for x, y in ((u, u), (v, v), (u, v)))
    return uu.sum(1) + uv.sum(1), vv.sum(1) + uv.sum(0)


def contrast(u: Tensor, v: Tensor, masses: Masses, temperature: float, with_positive: bool) -> Tensor:
    """Mean over both views (N x C each, of length 1) of -log(positive / denominator).

    `masses` are sums of the similarities with negatives, as by `shifted_exp`. The positive is a summand of the
    denominator or, without it, `EPS` in the scale of exp(cosine / temperature).
    """
    positive = ((u * v).sum(1) - 1) / temperature
    rest = torch.exp(positive).repeat(2) if with_positive else EPS * math.exp(-1 / temperature)
    return (torch.log(torch.cat(masses) + rest) - positive.repeat(2)).mean()


class NTXent(nn.Module):
    """The normalised temperature-scaled cross entropy of two views (Chen et al. 2020, equation 1).

    With s(x, y) = exp(cos(x, y) / temperature), Z = [first; second] and z_k' the other view of z_k's place:

        L = mean_k -log( s(z_k, z_k') / (s(z_k, z_k') + sum_{l not in {k, k'}} s(z_k, z_l)) )

    Args:
        temperature: Divides the cosines.
        positive_in_denominator: Whether s(z_k, z_k') is a summand of the denominator; otherwise `EPS` is.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.5, positive_in_denominator: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"`temperature` is positive, not {temperature}")
        self.temperature, self.with_positive = temperature, positive_in_denominator

    def forward(self, first: Tensor, second: Tensor, groups: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            first: N x C raw embeddings of view 1.
            second: N x C of view 2.
            groups: N ids; rows with the same id are never each other's negatives.

        Returns:
            A scalar; of float32 where the embeddings have less precision.

        Raises:
            ValueError: If there are fewer than two rows, or shapes differ.
        """
        with torch.autocast(first.device.type, enabled=False):
            u, v = unit_rows((first, second))
            masses = base_masses(u, v, other_places(len(u), groups, u.device), self.temperature)
            return contrast(u, v, masses, self.temperature, self.with_positive)


class InfoNCE(nn.Module):
    """InfoNCE between two modalities (van den Oord et al. 2018), symmetric as in CLIP (Radford et al. 2021).

    With s(x, y) = exp(cos(x, y) / temperature), x_i and y_i the embeddings of place i in the two modalities:

        L = mean_i 1/2 [ -log( s(x_i, y_i) / sum_j s(x_i, y_j) ) - log( s(x_i, y_i) / sum_j s(x_j, y_i) ) ]

    The cosines are divided by the temperature, which is positive (else ValueError).
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"`temperature` is positive, not {temperature}")
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor, groups: Tensor | None = None) -> Tensor:
        """Compute the loss of embeddings of two modalities, as `NTXent.forward` does of two views."""
        with torch.autocast(first.device.type, enabled=False):
            x, y = unit_rows((first, second))
            similar = shifted_exp(x @ y.T, self.temperature) * other_places(len(x), groups, x.device)
            return contrast(x, y, (similar.sum(1), similar.sum(0)), self.temperature, True)
