"""The contrastive loss over tuples of embeddings of all modalities: published, corrected, and all in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config.pretraining import VARIANTS, Negatives, Partners, PerturbedViews
from tmcnet.config.training import Variant
from tmcnet.loss.ntxent import Masses, base_masses, contrast, other_places, unit_rows
from tmcnet.loss.perturbed import Halves, own_mass, shifted_masses


class TupleNTXent(nn.Module):
    """NT-Xent over fused optical-SAR tuples, with tuples that hold the wrong partner as additional negatives.

    Each of the N rows is one place, seen as optical view 1 and 2 (`a`, `c`) and SAR view 1 and 2 (`b`, `d`), all
    scaled to length 1. A place is fused to u_i = a_i + b_i (view 1) and v_i = c_i + d_i (view 2). With
    s(x, y) = exp(cos(x, y) / temperature) and Z = [u; v], z_k's positive is the other view of the same place, k'.

        L = mean_k -log( s(z_k, z_k') / (first + E^0_k + S_k + O_k) )
        E^0_k = sum of s(z_k, z_l) over all l but k and k'

    `first` is s(z_k, z_k') with `positive_in_denominator`, else eps. The perturbed tuples of view t, of which o^1,
    s^1 = a, b and o^2, s^2 = c, d, are p^t_ij = o^t_i + w s^t_j with the wrong SAR image (j != i), and p^t_ji with
    the wrong optical one. The wrong half has no gradient unless `perturbed_gradient`. w is `perturbation_weight`.

    `shifted` negatives (Ye et al. 2025 as coded; docs/method.md, section 5) are more sets of tuples, which meet
    other places only:

        S_k = sum_r E^r_k, with Z^r = [p^1_{i,(i-r) mod N}; v] or, of both views, [p^1_{i,(i-r) mod N}; p^2_{i,(i-r)}]
        E^r_k = sum of s(z^r_k, z^r_l) over all l but k and k'

    and the same with wrong optical images for `wrong_partners="both"`; r runs over 1..N-1 or the given shifts. Cost
    N^3 similarities, formed in chunks.

    `own` negatives are the tuples that share one half with the anchor, which the published form leaves out:

        O_k = sum_t sum_{j != i} [ s(z_k, p^t_ij) + s(z_k, p^t_ji) ],   i the place of row k

    without p^t_ji for `wrong_partners="sar"`, and t over view 1 or both. Cost N^2 similarities.

    Places of the same group are left out of all sums. `perturbation=False` leaves S and O out.

    Other modalities (this project's own generalisation; none is published) are additional summands. With x^t_m the
    embeddings of modality m in view t, the optical one m = 0, and the weights w_0 = 1 and w_m = w else, a place is
    fused to u_i = sum_m x^1_m,i, and a perturbed tuple has one modality from another place:

        p^t_m,ij = sum_{n != m} w_n x^t_n,i + w_m x^t_m,j

    There is such a family of tuples for each m > 0, and for m = 0 with `wrong_partners="both"`; S and O are sums over
    all families. Of two modalities this is what stands above.

    Args:
        temperature: Divides the cosines.
        perturbation_weight: w.
        variant: `reference` or `corrected`; what each option is where it is None (`tmcnet.config.pretraining`).
        perturbation: Whether perturbed tuples are negatives.
        eps: Smallest length of an embedding, and the summand in place of the positive.
        perturbed_negatives: `shifted`, `own` or `both`.
        wrong_partners: `sar` (any modality but the optical one) or `both`.
        perturbed_views: `first` or `both`.
        perturbed_gradient: Gradient through the wrong half.
        positive_in_denominator: Whether the positive is a summand of the denominator.

    Raises:
        ValueError: If temperature or weight are not positive, or the variant is unknown.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        perturbation_weight: float | None = None,
        variant: Variant = "reference",
        perturbation: bool = True,
        eps: float = 1e-8,
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
        self.temperature, self.perturbation, self.eps = temperature, perturbation, eps

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
            rows = unit_rows((opt1, opt2, sar1, sar2, *(x for pair in others for x in pair)), self.eps)
            views = rows[::2], rows[1::2]
            u, v = (F.normalize(reduce(torch.add, view), dim=1, eps=self.eps) for view in views)
            elsewhere = other_places(len(u), groups, u.device)
            terms = [base_masses(u, v, elsewhere, self.temperature)]
            if self.perturbation:
                terms += self._perturbed(u, v, views, elsewhere, shifts)
            mass_u, mass_v = (torch.stack(column).sum(0) for column in zip(*terms, strict=True))
            return contrast(u, v, (mass_u, mass_v), self.temperature, self.form.positive_in_denominator, self.eps)

    def _perturbed(
        self,
        u: Tensor,
        v: Tensor,
        views: Sequence[Sequence[Tensor]],
        elsewhere: Tensor,
        shifts: Sequence[int] | None,
    ) -> Iterator[Masses]:
        """The masses of perturbed tuples, one pair for each kind of them."""
        both = self.form.perturbed_views == "both"
        families = list(zip(*(self._families(view) for view in views), strict=True))
        if self.form.perturbed_negatives != "own":
            for first, second in families:
                yield shifted_masses(
                    first, second if both else v, elsewhere, self.temperature, self.eps, shifts=shifts
                )
        if self.form.perturbed_negatives != "shifted":
            for halves in (h for family in families for h in (family if both else family[:1])):
                mass_u, mass_v = (own_mass(z, halves, elsewhere, self.temperature, self.eps) for z in (u, v))
                yield mass_u, mass_v

    def _families(self, view: Sequence[Tensor]) -> list[Halves]:
        """The halves of a view's tuples: a family for each modality that is wrong in turn, the optical one last."""
        weighed = [view[0], *(self.form.perturbation_weight * x for x in view[1:])]
        wrong = [*range(1, len(view)), *([0] if self.form.wrong_partners == "both" else [])]
        return [(reduce(torch.add, [*weighed[:m], *weighed[m + 1 :]]), self._wrong(weighed[m])) for m in wrong]

    def _wrong(self, half: Tensor) -> Tensor:
        return half if self.form.perturbed_gradient else half.detach()
