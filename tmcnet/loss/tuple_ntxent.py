"""The TMCNet loss: NT-Xent over fused tuples of all modalities, with perturbed tuples as additional negatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tmcnet.config.pretraining import VARIANTS, Negatives, Partners, PerturbedViews
from tmcnet.config.training import Variant
from tmcnet.loss.ntxent import EPS, Masses, base_masses, contrast, other_places, shifted_exp, unit_rows

MAX_CHUNK_ENTRIES = 2**20
"""Similarities computed at once; 4 MiB in float32, which stay in a CPU's cache."""


class TupleHalves(NamedTuple):
    """Weighted halves of the perturbed tuples p_ij = right_i + wrong_j of one view, N x C each."""

    right: Tensor
    wrong: Tensor


class TupleNTXent(nn.Module):
    """NT-Xent over fused optical-SAR tuples, with perturbed tuples as additional negatives (Ye et al. 2025).

    Row i of the embeddings is one place. With o and s its optical and SAR embeddings of length 1, u_i = o^1_i + s^1_i
    and v_i = o^2_i + s^2_i its fused tuples in views 1 and 2, Z = [u; v], s(x, y) = exp(cos(x, y) / temperature), and
    k' the other view of the place of row k:

        L = mean_k -log( s(z_k, z_k') / (P_k + E_k + S_k + O_k) )
        E_k = sum of s(z_k, z_l) over all l but k and k'

    P_k is s(z_k, z_k') with `positive_in_denominator`, else `EPS`. Perturbed tuples of view t have a wrong SAR or a
    wrong optical half: p^t_ij = o^t_i + w s^t_j or o^t_j + w s^t_i, j != i, w = `perturbation_weight`. S_k (`shifted`
    negatives, as published) compares them with those of other places, O_k (`own` negatives) with the fused tuple of
    the same place. docs/method.md has both sums (section 5) and the case of more modalities (section 12).

    Args:
        temperature: Divides the cosines.
        perturbation_weight: w, the weight of all modalities but the optical one in a perturbed tuple.
        variant: `reference` or `corrected`; gives every option that is None (`tmcnet.config.pretraining.VARIANTS`).
        perturbation: Whether perturbed tuples are negatives at all.
        perturbed_negatives: `shifted`, `own` or `both`.
        wrong_partners: Which half may be wrong: `sar` (any modality but the optical one) or `both`.
        perturbed_views: Views whose tuples are perturbed: `first` or `both`.
        perturbed_gradient: Whether the wrong half has a gradient.
        positive_in_denominator: Whether the positive is a summand of the denominator.

    Raises:
        ValueError: If temperature or weight are not positive, or the variant is unknown.

    Example:
        >>> loss = TupleNTXent(variant="corrected")
        >>> loss(opt1, opt2, sar1, sar2).backward()
    """

    def __init__(
        self,
        temperature: float = 0.5,
        perturbation_weight: float | None = None,
        variant: Variant = "reference",
        perturbation: bool = True,
        *,
        perturbed_negatives: Negatives | None = None,
        wrong_partners: Partners | None = None,
        perturbed_views: PerturbedViews | None = None,
        perturbed_gradient: bool | None = None,
        positive_in_denominator: bool | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"`variant` is one of {sorted(VARIANTS)}, not {variant!r}")
        options: dict[str, Any] = {
            "perturbation_weight": perturbation_weight,
            "perturbed_negatives": perturbed_negatives,
            "wrong_partners": wrong_partners,
            "perturbed_views": perturbed_views,
            "perturbed_gradient": perturbed_gradient,
            "positive_in_denominator": positive_in_denominator,
        }
        self.form = VARIANTS[variant]._replace(**{k: v for k, v in options.items() if v is not None})
        weight = self.form.perturbation_weight
        if temperature <= 0 or weight <= 0:
            raise ValueError(f"`temperature` and `perturbation_weight` are positive, not {temperature} and {weight}")
        self.temperature, self.perturbation = temperature, perturbation

    def forward(
        self,
        opt1: Tensor,
        opt2: Tensor,
        sar1: Tensor,
        sar2: Tensor,
        groups: Tensor | None = None,
        shifts: Sequence[int] | None = None,
        others: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> Tensor:
        """Compute the loss.

        Args:
            opt1: N x C raw embeddings of optical view 1.
            opt2: N x C of optical view 2.
            sar1: N x C of SAR view 1.
            sar2: N x C of SAR view 2.
            groups: N ids; rows with the same id are never each other's negatives.
            shifts: The shifts r of `shifted` negatives, from 1..N-1; None for all.
            others: N x C of views 1 and 2 of each other modality.

        Returns:
            A scalar; of float32 where the embeddings have less precision.

        Raises:
            ValueError: If there are fewer than two rows, or shapes differ.
        """
        with torch.autocast(opt1.device.type, enabled=False):
            rows = unit_rows((opt1, opt2, sar1, sar2, *(x for pair in others for x in pair)))
            views = rows[::2], rows[1::2]
            u, v = (F.normalize(reduce(torch.add, view), dim=1, eps=EPS) for view in views)
            negatives = other_places(len(u), groups, u.device)
            terms = [base_masses(u, v, negatives, self.temperature)]
            if self.perturbation:
                terms += self._perturbed_masses(u, v, views, negatives, shifts)
            mass_u, mass_v = (torch.stack(column).sum(0) for column in zip(*terms, strict=True))
            return contrast(u, v, (mass_u, mass_v), self.temperature, self.form.positive_in_denominator)

    def _perturbed_masses(
        self, u: Tensor, v: Tensor, views: Sequence[Sequence[Tensor]], negatives: Tensor, shifts: Sequence[int] | None
    ) -> Iterator[Masses]:
        """Sums of similarities with perturbed tuples, one pair for each set of tuples."""
        both_views = self.form.perturbed_views == "both"
        families = list(zip(*(self._perturbed_tuples(view) for view in views), strict=True))
        if self.form.perturbed_negatives != "own":
            shifts = range(1, len(u)) if shifts is None else shifts
            for first, second in families:
                partner = second if both_views else v
                yield shifted_masses(first, partner, negatives, self.temperature, shifts)
        if self.form.perturbed_negatives != "shifted":
            for halves in (h for family in families for h in (family if both_views else family[:1])):
                mass_u, mass_v = (own_mass(z, halves, negatives, self.temperature) for z in (u, v))
                yield mass_u, mass_v

    def _perturbed_tuples(self, view: Sequence[Tensor]) -> list[TupleHalves]:
        """Weight the modalities of a view and split its perturbed tuples into their right and wrong half.

        One set of tuples for each modality that comes from a wrong place; the optical one (the first) is the last.
        """
        weighted = [view[0], *(self.form.perturbation_weight * x for x in view[1:])]
        wrong = [*range(1, len(view)), *([0] if self.form.wrong_partners == "both" else [])]
        tuples = []
        for m in wrong:
            right = reduce(torch.add, [*weighted[:m], *weighted[m + 1 :]])
            tuples.append(TupleHalves(right, weighted[m] if self.form.perturbed_gradient else weighted[m].detach()))
        return tuples


def own_mass(z: Tensor, halves: TupleHalves, negatives: Tensor, temperature: float) -> Tensor:
    """Sum the similarities of each anchor i, of length 1, with its own perturbed tuples p_ij over the places j.

    These are the `own` negatives of anchors z, N x C: N^2 similarities, of the places in `negatives`, N x N. They
    follow from dot products of the halves: z_i . p_ij = z_i . right_i + z_i . wrong_j and |p_ij|^2 = |right_i|^2 +
    |wrong_j|^2 + 2 right_i . wrong_j, which is at least `EPS`.
    """
    right, wrong = halves
    lengths = right.square().sum(1)[:, None] + wrong.square().sum(1)[None, :] + 2 * (right @ wrong.T)
    # The clamp keeps the gradient of the root finite where two halves cancel.
    cosine = ((z * right).sum(1)[:, None] + z @ wrong.T) * lengths.clamp_min(EPS).rsqrt()
    return (shifted_exp(cosine, temperature) * negatives).sum(1)


def shifted_masses(
    first: TupleHalves, second: TupleHalves | Tensor, negatives: Tensor, temperature: float, shifts: Sequence[int]
) -> Masses:
    """Sum the similarities within the sets Z^r = [u^r; v^r], u^r_i = right_i + wrong_{(i - r) mod N}, over shifts r.

    These are the published `shifted` negatives: N^2 similarities for each shift. Shifts are computed in chunks, and
    chunks once more in the backward pass, so that memory does not grow with their number. Batched products of R x N x
    C rows cost less than gathering from N x N Gram matrices, whose backward pass scatters N^3 values.

    The second view may be N x C tuples of length 1 that are not perturbed. Returns, for each row of view 1 and of
    view 2, the sum over r and over the rows of other places (`negatives`, N x N) in both views.
    """
    n = len(negatives)
    places = torch.arange(n, device=negatives.device)
    size = max(MAX_CHUNK_ENTRIES // n**2, 1)
    mass_u, mass_v = first.right.new_zeros(2, n)
    for start in range(0, len(shifts), size):
        chunk = torch.tensor(shifts[start : start + size], device=places.device)
        partners = (places[None, :] - chunk[:, None]) % n
        masses: Masses = checkpoint(
            _chunk_masses, first, second, partners, negatives, temperature,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        mass_u, mass_v = mass_u + masses[0], mass_v + masses[1]
    if isinstance(second, TupleHalves):
        return mass_u, mass_v
    # Similarities within an unperturbed view are the same in every set.
    within = shifted_exp(second @ second.T, temperature) * negatives
    return mass_u, mass_v + len(shifts) * within.sum(1)


def _chunk_masses(
    first: TupleHalves, second: TupleHalves | Tensor, partners: Tensor, negatives: Tensor, temperature: float
) -> Masses:
    """The sums of `shifted_masses` for R shifts; `partners` is R x N, the place whose wrong half each tuple has."""
    u, v = (
        F.normalize(x.right + x.wrong[partners], dim=2, eps=EPS) if isinstance(x, TupleHalves) else x
        for x in (first, second)
    )
    uu, uv = (_summed_similarities(u, x, temperature) * negatives for x in (u, v))
    mass_v = uv.sum(0)
    if v.ndim == 3:
        mass_v = mass_v + (_summed_similarities(v, v, temperature) * negatives).sum(1)
    return uu.sum(1) + uv.sum(1), mass_v


def _summed_similarities(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """N x N sums over R of the `shifted_exp` of dot products of x, R x N x C, and y, R x N x C or N x C.

    In place, since passes over the R x N x N result cost more than the matrix product.
    """
    cosines: Tensor = (x * temperature**-0.5) @ (y * temperature**-0.5).mT
    return cosines.sub_(1 / temperature).exp_().sum(0)
