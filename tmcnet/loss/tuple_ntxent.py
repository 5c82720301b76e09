"""The contrastive loss over tuples of optical and SAR embeddings, in its published and its corrected form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config.training import Variant
from tmcnet.loss.reference import perturbed_mass

WEIGHTS: dict[Variant, float] = {"reference": 0.1, "corrected": 1.0}
"""Weight of the SAR embedding in perturbed tuples where none is given."""


class TupleNTXent(nn.Module):
    """NT-Xent over fused optical-SAR tuples, with tuples that hold the wrong partner as further negatives.

    Each of the N rows is one place, seen as optical view 1 and 2 (`a`, `c`) and SAR view 1 and 2 (`b`, `d`), all
    scaled to length 1. A place is fused to u_i = a_i + b_i (view 1) and v_i = c_i + d_i (view 2). With
    s(x, y) = exp(cos(x, y) / temperature) and Z = [u; v], z_k's positive is the other view of the same place, k'.

    `reference` (Ye et al. 2025 as coded; reference_spec.md, section 5), with w the perturbation weight (0.1), sg no
    gradient, and u^r_i = a_i + w sg(b_{(i - r) mod N}):

        L = mean_k -log( s(z_k, z_k') / (E^0_k + sum_{r=1}^{N-1} E^r_k + eps) )
        E^r_k = sum of s(z^r_k, z^r_l) over all l but k and k', with Z^r = [u^r; v] and Z^0 = Z

    Cost N^3 similarities; they are formed by matrix products over chunks of shifts r, and recomputed in the backward
    pass where keeping them would take too much memory.

    `corrected` puts the positive into the denominator, perturbs both views, lets gradients through both partners,
    weighs both partners alike (w = 1) and compares an anchor with the tuples that share one half with it, which are
    the ones the published form leaves out. With p^t_ij = o^t_i + w s^t_j, where o^1, s^1 = a, b and o^2, s^2 = c, d:

        D_k = s(z_k, z_k') + sum_{l not in {k, k'}} s(z_k, z_l)
              + sum_{t=1,2} sum_{j != i} [ s(z_k, p^t_ij) + s(z_k, p^t_ji) ],   i the place of row k
        L = mean_k -log( s(z_k, z_k') / D_k )

    Places l and j with the same group as i are left out of all its sums. Cost N^2 similarities.

    `perturbation=False` leaves only E^0 (`reference`) or the first line of D (`corrected`, plain NT-Xent).

    Args:
        temperature: Divides the cosines.
        perturbation_weight: w; None takes the variant's own.
        variant: `reference` or `corrected`.
        perturbation: Whether perturbed tuples are negatives.
        eps: Smallest length of an embedding, and the summand of the published denominator.

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
    ) -> None:
        super().__init__()
        if variant not in WEIGHTS:
            raise ValueError(f"`variant` is one of {sorted(WEIGHTS)}, not {variant!r}")
        weight = WEIGHTS[variant] if perturbation_weight is None else perturbation_weight
        if temperature <= 0 or weight <= 0:
            raise ValueError(f"`temperature` and `perturbation_weight` are positive, not {temperature} and {weight}")
        self.temperature, self.weight, self.eps = temperature, weight, eps
        self.variant, self.perturbation = variant, perturbation

    def forward(self, opt1: Tensor, opt2: Tensor, sar1: Tensor, sar2: Tensor, groups: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            opt1: N x C raw embeddings of optical view 1.
            opt2: N x C of optical view 2.
            sar1: N x C of SAR view 1.
            sar2: N x C of SAR view 2.
            groups: N ids; rows with the same id are never each other's negatives. Only `corrected` knows groups.

        Returns:
            A scalar; of float32 where the embeddings have less precision.

        Raises:
            ValueError: If there are fewer than two rows, shapes differ, or `reference` is given groups.
        """
        embeddings = (opt1, opt2, sar1, sar2)
        if len({x.shape for x in embeddings}) > 1 or opt1.ndim != 2:
            raise ValueError(f"the four embeddings are N x C alike, not {[tuple(x.shape) for x in embeddings]}")
        if len(opt1) < 2:
            raise ValueError("the loss compares places with each other and needs at least two, not one")
        if groups is not None and self.variant == "reference":
            raise ValueError("`groups` has no meaning in the published loss; use the variant `corrected`")
        # Sums of exponentials lose too much in half precision.
        with torch.autocast(opt1.device.type, enabled=False):
            at_least = torch.promote_types(opt1.dtype, torch.float32)
            a, c, b, d = (F.normalize(x.to(at_least), dim=1, eps=self.eps) for x in embeddings)
            if self.variant == "reference":
                return self._reference(a, b, c, d)
            return self._corrected(a, b, c, d, groups)

    def _shifted_exp(self, cosine: Tensor) -> Tensor:
        """exp((cosine - 1) / temperature): s(., .) up to a factor that cancels, at most 1 and so never infinite."""
        return torch.exp((cosine - 1) / self.temperature)

    def _reference(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        n = len(a)
        u, v = (F.normalize(x, dim=1, eps=self.eps) for x in (a + b, c + d))
        elsewhere = ~torch.eye(n, dtype=torch.bool, device=a.device)
        uu, vv, uv = (self._shifted_exp(x @ y.T) * elsewhere for x, y in ((u, u), (v, v), (u, v)))
        mass_u = uu.sum(1) + uv.sum(1)
        mass_v = vv.sum(1) + uv.sum(0)
        if self.perturbation:
            more_u, more_v = perturbed_mass(a, b.detach(), v, self.weight, self.temperature, self.eps)
            # v meets itself in each of the N - 1 perturbed sets anew.
            mass_u, mass_v = mass_u + more_u, mass_v + more_v + (n - 1) * vv.sum(1)
        eps = self.eps * math.exp(-1 / self.temperature)
        positive = ((u * v).sum(1) - 1) / self.temperature
        return (torch.log(torch.cat([mass_u, mass_v]) + eps) - positive.repeat(2)).mean()

    def _corrected(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, groups: Tensor | None) -> Tensor:
        n = len(a)
        views = (a, b), (c, d)
        u, v = (F.normalize(o + s, dim=1, eps=self.eps) for o, s in views)
        if groups is None:
            groups = torch.arange(n, device=a.device)
        elsewhere = groups[:, None] != groups[None, :]
        uu, vv, uv = (self._shifted_exp(x @ y.T) * elsewhere for x, y in ((u, u), (v, v), (u, v)))
        positive = ((u * v).sum(1) - 1) / self.temperature
        mass_u = torch.exp(positive) + uu.sum(1) + uv.sum(1)
        mass_v = torch.exp(positive) + vv.sum(1) + uv.sum(0)
        if self.perturbation:
            for optical, sar in views:
                mass_u = mass_u + self._own_wrong_tuples(u, optical, sar, elsewhere)
                mass_v = mass_v + self._own_wrong_tuples(v, optical, sar, elsewhere)
        return (torch.log(torch.cat([mass_u, mass_v])) - positive.repeat(2)).mean()

    def _own_wrong_tuples(self, z: Tensor, optical: Tensor, sar: Tensor, elsewhere: Tensor) -> Tensor:
        """For each anchor i the sum over j of s(z_i, p_ij) + s(z_i, p_ji), from dot products of the halves.

        With lengths 1: z_i . p_ij = z_i . o_i + w z_i . s_j and |p_ij|^2 = 1 + w^2 + 2 w o_i . s_j.
        """
        w = self.weight
        lengths = (
            (optical * optical).sum(1)[:, None] + w * w * (sar * sar).sum(1)[None, :] + 2 * w * (optical @ sar.T)
        )
        # The clamp keeps the gradient of the root finite where two halves cancel; the diagonal is masked anyway.
        inverse = lengths.clamp_min(self.eps).rsqrt()
        wrong_sar = ((z * optical).sum(1)[:, None] + w * (z @ sar.T)) * inverse
        wrong_optical = (z @ optical.T + w * (z * sar).sum(1)[:, None]) * inverse.T
        masses = self._shifted_exp(wrong_sar) + self._shifted_exp(wrong_optical)
        return (masses * elsewhere).sum(1)
