"""The loss over tuples of three and more modalities against a slow textbook loop."""

from itertools import permutations

import pytest
import torch

from tmcnet.loss import TupleNTXent


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def textbook(views, form, tau=0.5, groups=None):
    """The formulas in the docstring of `TupleNTXent`, one similarity at a time.

    `views` are two lists of the N x C embeddings of M modalities.
    """
    views = [[unit(x) for x in view] for view in views]
    n, modalities = len(views[0][0]), range(len(views[0]))
    groups = list(range(n)) if groups is None else groups.tolist()
    weights = [1.0, *(form["weight"] for _ in modalities[1:])]
    perturbed = [m for m in modalities if m > 0 or form["partners"] == "both"]

    def fused(view, i):
        return sum(views[view][m][i] for m in modalities)

    def tuple_with_wrong(view, m, i, j):
        right = sum(weights[k] * views[view][k][i] for k in modalities if k != m)
        return right + weights[m] * views[view][m][j]

    def similar(x, y):
        return torch.exp((unit(x) * unit(y)).sum() / tau)

    place = [*range(n)] * 2
    z = [fused(0, i) for i in range(n)] + [fused(1, i) for i in range(n)]
    total = 0
    for k, i in enumerate(place):
        positive = similar(z[k], z[(k + n) % (2 * n)])
        others = [j for j in range(n) if groups[j] != groups[i]]
        below = positive + sum(similar(z[k], z[j]) + similar(z[k], z[j + n]) for j in others)
        for m in perturbed:
            if form["negatives"] in ("own", "both"):
                below = below + sum(similar(z[k], tuple_with_wrong(t, m, i, j)) for t in (0, 1) for j in others)
            for r in range(1, n) if form["negatives"] in ("shifted", "both") else ():
                rows = [tuple_with_wrong(t, m, a, (a - r) % n) for t in (0, 1) for a in range(n)]
                below = below + sum(similar(rows[k], rows[j]) + similar(rows[k], rows[j + n]) for j in others)
        total = total - torch.log(positive / below)
    return total / (2 * n)


def embeddings(n, modalities, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 5, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2 * modalities)]


def fast(inputs, form, **more):
    loss = TupleNTXent(
        0.5,
        form["weight"],
        "corrected",
        perturbed_negatives=form["negatives"],
        wrong_partners=form["partners"],
    )
    optical1, optical2, sar1, sar2, *others = inputs
    return loss(optical1, optical2, sar1, sar2, others=list(zip(others[::2], others[1::2], strict=True)), **more)


OWN, SHIFTED, ALL = (
    {"negatives": negatives, "partners": partners, "weight": weight}
    for negatives, partners, weight in (("own", "both", 1.0), ("shifted", "both", 0.3), ("both", "sar", 0.1))
)


@pytest.mark.parametrize(
    ("n", "modalities", "form"),
    [(2, 3, OWN), (3, 4, OWN), (16, 3, OWN), (2, 3, SHIFTED), (5, 3, SHIFTED), (3, 4, ALL), (4, 3, ALL)],
    ids=lambda value: value["negatives"] if isinstance(value, dict) else str(value),
)
def test_equals_the_textbook(n, modalities, form):
    inputs = embeddings(n, modalities)
    values = fast(inputs, form), textbook((inputs[::2], inputs[1::2]), form)
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    for got, expected in zip(*(torch.autograd.grad(value, inputs) for value in values), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_places_of_one_group_are_no_negatives():
    inputs, groups = embeddings(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    slow = textbook((inputs[::2], inputs[1::2]), OWN, groups=groups)
    torch.testing.assert_close(fast(inputs, OWN, groups=groups), slow, rtol=1e-10, atol=0)


@torch.no_grad()
def test_the_order_of_other_modalities_has_no_effect_but_optical_is_special():
    """With any weight, the order of the others has no effect."""
    optical, *others = (embeddings(5, 1, seed) for seed in range(4))
    form = {"negatives": "own", "partners": "both", "weight": 0.3}
    values = [float(fast([*optical, *(x for pair in order for x in pair)], form)) for order in permutations(others)]
    assert values == pytest.approx([values[0]] * 6, rel=1e-12)
    turned = fast([*others[0], *optical, *(x for pair in others[1:] for x in pair)], form)
    assert float(turned) != pytest.approx(values[0], rel=1e-6)
