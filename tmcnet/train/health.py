"""Whether pre-training learns something: cheap figures of a batch of embeddings.

What to look for: positives grow alike while the nearest other place stays apart, retrieval rises in each modality
and from one to another, and no effective rank falls towards 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.model.tmcnet import Pair


def alignment(x: Tensor, y: Tensor) -> float:
    """Mean squared distance of positives on the unit sphere, 0..4; lower is better (Wang and Isola 2020)."""
    return float((x - y).square().sum(1).mean())


def uniformity(x: Tensor) -> float:
    """Logarithm of the mean of exp(-2 d^2) over pairs on the unit sphere, -8..0; lower is better (Wang, Isola)."""
    return float(torch.pdist(x).square().mul(-2).exp().mean().log())


def positive_similarity(x: Tensor, y: Tensor) -> float:
    """Mean cosine of the two views of a place, -1..1; near 1 where the changes between views are ignored."""
    return float((x * y).sum(1).mean())


def hardest_negative_similarity(x: Tensor, y: Tensor) -> float:
    """Mean over the places of the cosine to the most similar other place in the other view, -1..1.

    Learning widens the gap between it and `positive_similarity`; where both are near 1, the embedding has collapsed.
    Neighbouring patches of one tile count as other places, so it need not be low for patches.
    """
    cosines = (x @ y.T).fill_diagonal_(-torch.inf)
    return float(cosines.amax(1).mean())


def effective_rank(x: Tensor) -> float:
    """Exponential of the entropy of the singular values (Roy and Vetterli 2007), 1..min(N, C).

    A collapsed embedding, the same for every place, is near 1. Values are centred beforehand.
    """
    singular = torch.linalg.svdvals(x - x.mean(0))
    shares = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


def retrieval(queries: Tensor, places: Tensor) -> float:
    """Share of the queries whose nearest among the places is their own, 0..1; 1/N by chance."""
    nearest = (queries @ places.T).argmax(1)
    return float((nearest == torch.arange(len(queries), device=queries.device)).float().mean())


def health(embeddings: Mapping[str, Pair]) -> dict[str, float]:
    """Figures of one batch.

    Args:
        embeddings: Views 1 and 2 of each input of the network, each N x C, at least two rows. The inputs are
            modalities, or `stacked` bands.

    Returns:
        Of the fused views `alignment`, `uniformity`, `effective_rank`, `positive_similarity` and
        `hardest_negative_similarity`; of each input alone `effective_rank_optical`, `effective_rank_sar` (view 1)
        and so on, and the accuracy of finding the same place in the other view (`retrieval_optical`,
        `retrieval_sar`); and that of finding it in another input of view 1 (`retrieval_optical_to_sar`,
        `retrieval_sar_to_optical`), which stays at 1/N unless the loss pulls the modalities together.
    """
    firsts, seconds = (
        {name: F.normalize(pair[view].detach().float(), dim=1) for name, pair in embeddings.items()}
        for view in (0, 1)
    )
    first, second = (F.normalize(reduce(torch.add, view.values()), dim=1) for view in (firsts, seconds))
    return {
        "alignment": alignment(first, second),
        "uniformity": uniformity(first),
        "effective_rank": effective_rank(first),
        **{f"effective_rank_{name}": effective_rank(x) for name, x in firsts.items()},
        "positive_similarity": positive_similarity(first, second),
        "hardest_negative_similarity": hardest_negative_similarity(first, second),
        **{f"retrieval_{name}": retrieval(firsts[name], seconds[name]) for name in embeddings},
        **{f"retrieval_{a}_to_{b}": retrieval(firsts[a], firsts[b]) for a, b in permutations(embeddings, 2)},
    }
