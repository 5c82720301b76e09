"""Sums over tuples with the wrong partner, without a loop over pairs of places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tmcnet.loss.ntxent import Masses, shifted_exp

CHUNK = 2**20
"""Similarities formed at once; chunks of 4 MiB were fastest, since larger ones do not stay in the caches."""

Halves = tuple[Tensor, Tensor]
"""The right half of N tuples, and what is to be shifted to become their wrong half, each N x C and weighed."""


def own_mass(z: Tensor, halves: Halves, elsewhere: Tensor, temperature: float, eps: float) -> Tensor:
    """For each anchor i the sum of its similarities with its own tuples p_ij = right_i + wrong_j over the places j.

    From dot products of the halves: z_i . p_ij = z_i . right_i + z_i . wrong_j and
    |p_ij|^2 = |right_i|^2 + |wrong_j|^2 + 2 right_i . wrong_j.

    Args:
        z: N x C anchors, of length 1.
        halves: The two halves.
        elsewhere: N x N, which places j count for anchor i.
        temperature: Divides the cosines.
        eps: Smallest squared length.
    """
    right, wrong = halves
    lengths = right.square().sum(1)[:, None] + wrong.square().sum(1)[None, :] + 2 * (right @ wrong.T)
    # The clamp keeps the gradient of the root finite where two halves cancel.
    cosine = ((z * right).sum(1)[:, None] + z @ wrong.T) * lengths.clamp_min(eps).rsqrt()
    return (shifted_exp(cosine, temperature) * elsewhere).sum(1)


def shifted_masses(
    first: Halves,
    second: Halves | Tensor,
    elsewhere: Tensor,
    temperature: float,
    eps: float,
    shifts: Sequence[int] | None = None,
) -> Masses:
    """Negatives in the sets Z^r = [u^r; v^r], u^r_i = right_i + wrong_{(i - r) mod N}, of all shifts r together.

    A batched product over R x N x C costs less than gathering from N x N Gram matrices: the gathers' backward pass
    scatters N^3 values one by one. Memory does not grow with the number of shifts, which are gone through in chunks.

    Args:
        first: The halves of view 1's tuples.
        second: Those of view 2, or its N x C tuples of length 1 where they stay as they are.
        elsewhere: N x N, which places count for each other.
        temperature: Divides the cosines.
        eps: Smallest length.
        shifts: The shifts; None for 1..N-1.

    Returns:
        For each row of view 1 and of view 2 the sum over r and over the rows of other places in both views.
    """
    n = len(first[0])
    shifts = range(1, n) if shifts is None else shifts
    tensors = (*first, *second) if isinstance(second, tuple) else (*first, second)
    scales = (temperature, eps)
    chunks = list(_chunks(n, shifts, elsewhere.device))
    mass: Masses = _ShiftedMasses.apply(elsewhere, chunks, scales, *tensors)  # type: ignore[no-untyped-call]
    if isinstance(second, tuple):
        return mass
    # Tuples that stay as they are meet each other in every set anew.
    within = shifted_exp(second @ second.T, temperature) * elsewhere
    return mass[0], mass[1] + len(shifts) * within.sum(1)


def _chunks(n: int, shifts: Sequence[int], device: torch.device) -> Iterator[Tensor]:
    """Partners (i - r) mod n of every row i (columns), for chunks of the shifts (rows)."""
    rows = torch.arange(n, device=device)
    size = max(CHUNK // n**2, 1)
    for start in range(0, len(shifts), size):
        yield (rows[None, :] - torch.tensor(shifts[start : start + size], device=device)[:, None]) % n


def _similarities(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """R x N x N `shifted_exp` of the dot products of x, R x N x C, and y, R x N x C or N x C.

    Written for few passes over the result, which cost more than the matrix product.
    """
    cosines: Tensor = (x * temperature**-0.5) @ (y * temperature**-0.5).mT
    return cosines.sub_(1 / temperature).exp_()


def _rows(tensors: Sequence[Tensor], partners: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The rows of views 1 and 2 of one chunk of shifts, R x N x C each; view 2 is N x C where it stays as it is."""
    u = F.normalize(tensors[0] + tensors[1][partners], dim=2, eps=eps)
    if len(tensors) == 3:
        return u, tensors[2]
    return u, F.normalize(tensors[2] + tensors[3][partners], dim=2, eps=eps)


class _ShiftedMasses(torch.autograd.Function):
    """Sums over all chunks of shifts: of view 2's rows with each other only where view 2 is shifted too.

    The backward pass forms the similarities of each chunk anew instead of keeping them. Its derivatives by the rows
    are written out, since they take three matrix products where automatic differentiation takes four.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch gives it no public type
        elsewhere: Tensor,
        chunks: list[Tensor],
        scales: tuple[float, float],
        *tensors: Tensor,
    ) -> Masses:
        ctx.save_for_backward(elsewhere, *tensors)
        ctx.chunks, ctx.scales = chunks, scales
        temperature, eps = scales
        uu, uv, vv = (tensors[0].new_zeros(elsewhere.shape) for _ in range(3))
        for partners in chunks:
            u, v = _rows(tensors, partners, eps)
            uu += _similarities(u, u, temperature).sum(0)
            uv += _similarities(u, v, temperature).sum(0)
            if v.ndim == 3:
                vv += _similarities(v, v, temperature).sum(0)
        # The places are masked once, after the sum over shifts.
        uu, uv, vv = (total * elsewhere for total in (uu, uv, vv))
        return uu.sum(1) + uv.sum(1), vv.sum(1) + uv.sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_u: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        elsewhere, *tensors = ctx.saved_tensors
        temperature, eps = ctx.scales
        wanted = ctx.needs_input_grad[3:]
        totals = [torch.zeros_like(tensor) if want else None for tensor, want in zip(tensors, wanted, strict=True)]
        # Derivatives of the result by the N x N dot products, but for the similarities themselves.
        pairs = (grad_u, grad_u), (grad_u, grad_v), (grad_v, grad_v)
        slopes = [(x[:, None] + y[None, :]) * elsewhere / temperature for x, y in pairs]
        for partners in ctx.chunks:
            leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
            with torch.enable_grad():
                rows = _rows(leaves, partners, eps)
            found = _back(rows, _row_gradients(*rows, slopes, temperature), leaves)
            for total, more in zip(totals, found, strict=True):
                if total is not None and more is not None:
                    total += more
        return None, None, None, *totals


def _row_gradients(u: Tensor, v: Tensor, slopes: Sequence[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Gradients of the masses, weighed by `slopes`, by the rows of one chunk."""
    u, v = u.detach(), v.detach()
    by_uu, by_uv, by_vv = slopes
    across = _similarities(u, v, temperature).mul_(by_uv)
    grad_u = across @ v + _similarities(u, u, temperature).mul_(by_uu) @ u
    grad_v = across.mT @ u
    if v.ndim == 2:
        return grad_u, grad_v.sum(0)
    return grad_u, grad_v + _similarities(v, v, temperature).mul_(by_vv) @ v


def _back(rows: Sequence[Tensor], gradients: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the rows carried back to what they were made of; None for what takes no gradient."""
    live = [(row, gradient) for row, gradient in zip(rows, gradients, strict=True) if row.requires_grad]
    sources = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad([row for row, _ in live], sources, [gradient for _, gradient in live]))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]
