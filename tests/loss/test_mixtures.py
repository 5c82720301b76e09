"""Every mixture of published and corrected, and the baselines, against slow textbook forms."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tmcnet.loss import InfoNCE, NTXent, TupleNTXent, tuple_ntxent

CHOICES = {
    "perturbed_negatives": ("shifted", "own", "both"),
    "wrong_partners": ("sar", "both"),
    "perturbed_views": ("first", "both"),
    "perturbed_gradient": (False, True),
    "positive_in_denominator": (False, True),
}
MIXTURES = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]


def embeddings(n, c=5, seed=0, count=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


def similarity(x, y, tau):
    return torch.exp(F.cosine_similarity(x, y, dim=-1, eps=0) / tau)


def textbook(inputs, mixture, tau, weight, groups, shifts):
    """The formula in the docstring of `TupleNTXent`, place by place and set by set."""
    n = len(inputs[0])
    a, c, b, d = (x / x.norm(dim=1, keepdim=True) for x in inputs)
    right = {"o1": a, "s1": weight * b, "o2": c, "s2": weight * d}
    wrong = right if mixture["perturbed_gradient"] else {name: half.detach() for name, half in right.items()}
    pairs = ["os", "so"] if mixture["wrong_partners"] == "both" else ["os"]
    views = "12" if mixture["perturbed_views"] == "both" else "1"
    u, v = a + b, c + d
    sets = [torch.cat([u, v])]
    if mixture["perturbed_negatives"] != "own":
        for (x, y), r in product(pairs, shifts):
            shifted = {t: right[x + t] + torch.stack([wrong[y + t][(i - r) % n] for i in range(n)]) for t in views}
            sets.append(torch.cat([shifted["1"], shifted.get("2", v)]))
    total = 0
    for k in range(2 * n):
        i, partner = k % n, (k + n) % (2 * n)
        anchor, others = sets[0][k], [j for j in range(n) if groups[j] != groups[i]]
        positive = similarity(anchor, sets[0][partner], tau)
        below = positive if mixture["positive_in_denominator"] else 1e-8
        for z in sets:
            below = below + sum(similarity(z[k], z[row], tau) for j in others for row in (j, j + n))
        if mixture["perturbed_negatives"] != "shifted":
            for (x, y), t, j in product(pairs, views, others):
                below = below + similarity(anchor, right[x + t][i] + wrong[y + t][j], tau)
        total = total - torch.log(positive / below)
    return total / (2 * n)


def assert_same(fast, slow, inputs, tolerance=1e-10):
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    found, expected = (torch.autograd.grad(value, inputs, allow_unused=True) for value in (fast, slow))
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("number", range(len(MIXTURES)))
def test_every_mixture_equals_the_textbook(number, monkeypatch):
    """N, groups, shifts, weight and temperature change from mixture to mixture; chunks of shifts too."""
    mixture, n = MIXTURES[number], 2 + number % 7
    inputs = embeddings(n, seed=number)
    groups = [i // (1 + number % 2) for i in range(n)]
    shifts = list(range(1, n)) if number % 3 else [1 + number % (n - 1)]
    tau, weight = (0.5, 0.2)[number % 2], (0.1, 1.0, 0.7)[number % 3]
    monkeypatch.setattr(tuple_ntxent, "MAX_CHUNK_ENTRIES", 2 * n**2)
    fast = TupleNTXent(tau, weight, **mixture)(*inputs, groups=torch.tensor(groups), shifts=shifts)
    assert_same(fast, textbook(inputs, mixture, tau, weight, groups, shifts), inputs)


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries({key: st.sampled_from(values) for key, values in CHOICES.items()}),
    st.integers(2, 8),
    st.data(),
)
def test_random_mixtures_equal_the_textbook(mixture, n, data):
    inputs = embeddings(n, seed=data.draw(st.integers(0, 99)))
    groups = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    shifts = data.draw(st.lists(st.integers(1, n - 1), unique=True, max_size=n - 1))
    fast = TupleNTXent(0.3, 0.6, **mixture)(*inputs, groups=torch.tensor(groups), shifts=shifts)
    assert_same(fast, textbook(inputs, mixture, 0.3, 0.6, groups, shifts), inputs)


def test_an_option_of_none_is_what_the_variant_says():
    inputs = embeddings(6)
    for variant, number in (("reference", 0), ("corrected", None)):
        explicit = MIXTURES[number] if number is not None else {**MIXTURES[-1], "perturbed_negatives": "own"}
        weight = {"reference": 0.1, "corrected": 1.0}[variant]
        assert TupleNTXent(variant=variant)(*inputs) == TupleNTXent(0.5, weight, **explicit)(*inputs)


def test_each_option_changes_the_loss_or_its_gradient():
    inputs = embeddings(6)

    def loss_and_gradients(**changes):
        loss = TupleNTXent(variant="reference", **changes)(*inputs)
        return loss.item(), *(g.sum().item() for g in torch.autograd.grad(loss, inputs))

    options = [{}, *({key: value} for key, values in CHOICES.items() for value in values)]
    distinct = {loss_and_gradients(**option) for option in options}
    assert len(distinct) == 1 + sum(len(values) - 1 for values in CHOICES.values())


def textbook_ntxent(first, second, tau, groups, with_positive):
    n, z = len(first), torch.cat([first, second])
    total = 0
    for k in range(2 * n):
        positive = similarity(z[k], z[(k + n) % (2 * n)], tau)
        below = positive if with_positive else 1e-8
        below = below + sum(similarity(z[k], z[m], tau) for m in range(2 * n) if groups[m % n] != groups[k % n])
        total = total - torch.log(positive / below)
    return total / (2 * n)


@pytest.mark.parametrize("with_positive", [True, False])
@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2]])
def test_ntxent_equals_the_textbook(groups, with_positive):
    inputs = embeddings(5, count=2)
    fast = NTXent(0.3, with_positive)(*inputs, groups=torch.tensor(groups))
    assert_same(fast, textbook_ntxent(*inputs, 0.3, groups, with_positive), inputs)


def test_infonce_is_the_cross_entropy_of_both_directions():
    x, y = embeddings(7, count=2)
    logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / 0.2
    places = torch.arange(7)
    slow = (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2
    assert_same(InfoNCE(0.2)(x, y), slow, [x, y])


def test_infonce_leaves_groups_out():
    x, y = embeddings(6, count=2)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / 0.5
    same = (groups[:, None] == groups) & ~torch.eye(6, dtype=torch.bool)
    logits = logits.masked_fill(same, -torch.inf)
    slow = (F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2
    assert_same(InfoNCE()(x, y, groups), slow, [x, y])


@pytest.mark.parametrize("loss", [NTXent(), InfoNCE()])
def test_bad_input_of_the_baselines_is_named(loss):
    with pytest.raises(ValueError, match="at least two"):
        loss(torch.randn(1, 4), torch.randn(1, 4))
    with pytest.raises(ValueError, match="same N x C"):
        loss(torch.randn(3, 4), torch.randn(3, 5))
    with pytest.raises(ValueError, match="positive"):
        type(loss)(temperature=0)


@pytest.mark.parametrize("loss", [NTXent(), InfoNCE(), NTXent(positive_in_denominator=False)])
def test_half_precision_is_computed_in_single(loss):
    inputs = [x.detach().to(torch.bfloat16) for x in embeddings(8, count=2)]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*inputs)
    assert value.dtype == torch.float32
    assert value == loss(*(x.float() for x in inputs))
