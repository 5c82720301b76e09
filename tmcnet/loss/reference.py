"""The N - 1 perturbed sets of the published loss, without a loop over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

KEPT_SIMILARITIES = 2**22
"""Similarities of one chunk of shifts; where one chunk holds them all, they are kept for the backward pass."""


def _chunk_mass(
    a: Tensor, b: Tensor, v: Tensor, partners: Tensor, weight: float, temperature: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Sums over the shifts of one chunk; `partners` (R x N) holds the index of each row's SAR partner."""
    n = len(a)
    perturbed = F.normalize(a + weight * b[partners], dim=2, eps=eps)  # R x N x C
    elsewhere = ~torch.eye(n, dtype=torch.bool, device=a.device)
    within = torch.exp((perturbed @ perturbed.transpose(1, 2) - 1) / temperature)
    across = torch.exp((perturbed @ v.T - 1) / temperature)
    # Summed over shifts first, so that the diagonal is masked once.
    mass_within, mass_across = within.sum(0) * elsewhere, across.sum(0) * elsewhere
    return mass_within.sum(1) + mass_across.sum(1), mass_across.sum(0)


def _chunks(n: int, device: torch.device) -> Iterator[Tensor]:
    """SAR partners (i - r) mod n of every row i (columns), for chunks of the shifts r = 1..n-1 (rows)."""
    rows = torch.arange(n, device=device)
    for shifts in torch.arange(1, n, device=device).split(max(KEPT_SIMILARITIES // n**2, 1)):  # type: ignore[no-untyped-call]
        yield (rows[None, :] - shifts[:, None]) % n


class _StreamedMass(torch.autograd.Function):
    """The sum of `_chunk_mass` over all chunks; the backward pass forms each chunk anew instead of keeping it."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch gives it no public type
        a: Tensor,
        b: Tensor,
        v: Tensor,
        scales: tuple[float, float, float],
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, b, v)
        ctx.scales = scales
        mass_u, mass_v = a.new_zeros(len(a)), a.new_zeros(len(a))
        for partners in _chunks(len(a), a.device):
            more_u, more_v = _chunk_mass(a, b, v, partners, *scales)
            mass_u += more_u
            mass_v += more_v
        return mass_u, mass_v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_u: Tensor, grad_v: Tensor) -> tuple[Tensor, None, Tensor, None]:  # noqa: ANN401 - torch's
        a, b, v = ctx.saved_tensors
        total_a, total_v = torch.zeros_like(a), torch.zeros_like(v)
        for partners in _chunks(len(a), a.device):
            with torch.enable_grad():
                leaves = a.detach().requires_grad_(), v.detach().requires_grad_()
                masses = _chunk_mass(leaves[0], b, leaves[1], partners, *ctx.scales)
            more_a, more_v = torch.autograd.grad(masses, leaves, (grad_u, grad_v))
            total_a += more_a
            total_v += more_v
        return total_a, None, total_v, None


def perturbed_mass(
    a: Tensor, b: Tensor, v: Tensor, weight: float, temperature: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Negatives of the perturbed sets Z^r = [u^r; v], r = 1..N-1, without the pairs of v among themselves.

    u^r_i = a_i + weight * b_{(i - r) mod N}. A batched product over R x N x C costs less than gathering from N x N
    Gram matrices: the gathers' backward pass scatters N^3 values one by one.

    Args:
        a: N x C optical embeddings of view 1, of length 1.
        b: N x C SAR embeddings of view 1, of length 1, detached.
        v: N x C fused embeddings of view 2, of length 1.
        weight: Weight of b.
        temperature: Divides the cosines.
        eps: Smallest length.

    Returns:
        For each u_i and for each v_i the sum over r and over the rows l other than i of exp((cos - 1) / temperature).
    """
    chunks = list(_chunks(len(a), a.device))
    if len(chunks) == 1:
        return _chunk_mass(a, b, v, chunks[0], weight, temperature, eps)
    mass: tuple[Tensor, Tensor] = _StreamedMass.apply(a, b, v, (weight, temperature, eps))  # type: ignore[no-untyped-call]
    return mass
