"""The loss against slow textbook loops, against golden values of the published code, and at its limits."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tmcnet.loss import TupleNTXent, tuple_ntxent

NAMES = ("opt1", "opt2", "sar1", "sar2")


def cosine(x, y):
    return (x @ y) / (x.norm() * y.norm())


def textbook_reference(opt1, opt2, sar1, sar2, tau=0.5, weight=0.1, perturbation=True):
    """The published form in docs/method.md, section 5, one similarity at a time."""
    n = len(opt1)
    a, c, b, d = (x / x.norm(dim=1, keepdim=True) for x in (opt1, opt2, sar1, sar2))
    v = [c[i] + d[i] for i in range(n)]
    sets = [[a[i] + b[i] for i in range(n)] + v]
    for r in range(1, n) if perturbation else []:
        sets.append([a[i] + weight * b[(i - r) % n].detach() for i in range(n)] + v)
    total = 0
    for k in range(2 * n):
        partner = (k + n) % (2 * n)
        below = 1e-8
        for z in sets:
            below = below + sum(torch.exp(cosine(z[k], z[m]) / tau) for m in range(2 * n) if m not in (k, partner))
        total = total - torch.log(torch.exp(cosine(sets[0][k], sets[0][partner]) / tau) / below)
    return total / (2 * n)


def textbook_corrected(opt1, opt2, sar1, sar2, tau=0.5, weight=1.0, perturbation=True, groups=None):
    """The formula in the docstring of `TupleNTXent`, one similarity at a time."""
    n = len(opt1)
    groups = list(range(n)) if groups is None else groups.tolist()
    a, c, b, d = (x / x.norm(dim=1, keepdim=True) for x in (opt1, opt2, sar1, sar2))
    z = [a[i] + b[i] for i in range(n)] + [c[i] + d[i] for i in range(n)]
    total = 0
    for k in range(2 * n):
        i, partner = k % n, (k + n) % (2 * n)
        positive = torch.exp(cosine(z[k], z[partner]) / tau)
        below = positive
        for j in range(n):
            if groups[j] == groups[i]:
                continue
            terms = [z[j], z[j + n]]
            if perturbation:
                for o, s in ((a, b), (c, d)):
                    terms += [o[i] + weight * s[j], o[j] + weight * s[i]]
            below = below + sum(torch.exp(cosine(z[k], term) / tau) for term in terms)
        total = total - torch.log(positive / below)
    return total / (2 * n)


def embeddings(n, c, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, c, generator=generator, dtype=dtype).requires_grad_() for _ in range(4)]


def assert_same(fast, slow, inputs, tolerance=1e-10):
    values = [loss(*inputs) for loss in (fast, slow)]
    gradients = [torch.autograd.grad(value, inputs, allow_unused=True) for value in values]
    torch.testing.assert_close(values[0], values[1], rtol=tolerance, atol=tolerance)
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("n", "c"), [(2, 3), (3, 8), (5, 16), (9, 4)])
@pytest.mark.parametrize("perturbation", [True, False])
@pytest.mark.parametrize("tau", [0.5, 0.1])
def test_reference_equals_textbook(n, c, perturbation, tau):
    fast = TupleNTXent(tau, variant="reference", perturbation=perturbation)
    assert_same(fast, lambda *x: textbook_reference(*x, tau=tau, perturbation=perturbation), embeddings(n, c))


@pytest.mark.parametrize(("n", "c"), [(2, 3), (3, 8), (13, 16), (24, 8)])
@pytest.mark.parametrize(("perturbation", "weight"), [(True, 1.0), (True, 0.4), (False, 1.0)])
def test_corrected_equals_textbook(n, c, perturbation, weight):
    fast = TupleNTXent(0.5, weight, variant="corrected", perturbation=perturbation)
    assert_same(fast, lambda *x: textbook_corrected(*x, weight=weight, perturbation=perturbation), embeddings(n, c))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_large_batch_equals_textbook(variant):
    slow = {"reference": textbook_reference, "corrected": textbook_corrected}[variant]
    n = {"reference": 20, "corrected": 64}[variant]
    assert_same(TupleNTXent(variant=variant), slow, embeddings(n, 16))


def test_groups_are_never_negatives():
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    inputs = embeddings(6, 5)
    fast = TupleNTXent(variant="corrected")
    assert_same(lambda *x: fast(*x, groups=groups), lambda *x: textbook_corrected(*x, groups=groups), inputs)
    alone = fast(*inputs, groups=torch.zeros(6, dtype=torch.long))
    assert alone.item() == pytest.approx(0.0, abs=1e-12)


def test_chunks_of_shifts_change_nothing(monkeypatch):
    inputs = embeddings(11, 7)
    loss = TupleNTXent(variant="reference")
    whole = loss(*inputs)
    gradients = torch.autograd.grad(whole, inputs)
    monkeypatch.setattr(tuple_ntxent, "MAX_CHUNK_ENTRIES", 3 * 11**2)
    chunked = loss(*inputs)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)
    for got, expected in zip(torch.autograd.grad(chunked, inputs), gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def golden_files():
    root = os.environ.get("TMCNET_DATA")
    return sorted((Path(root).parent / "golden").glob("tuple_ntxent_*.npz")) if root else []


@pytest.mark.skipif(not os.environ.get("TMCNET_DATA"), reason="TMCNET_DATA is not set: no golden values")
def test_reference_equals_golden_values():
    files = golden_files()
    assert files, "no golden values beside TMCNET_DATA"
    for file in files:
        golden = np.load(file)
        inputs = [torch.from_numpy(golden[name]).requires_grad_() for name in NAMES]
        loss = TupleNTXent(temperature=float(golden["temperature"]), variant="reference")(*inputs)
        assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-10, abs=1e-10)
        for name, gradient in zip(NAMES, torch.autograd.grad(loss, inputs), strict=True):
            np.testing.assert_allclose(gradient.numpy(), golden[f"grad_{name}"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_float32_and_small_temperature_stay_finite_and_close(variant):
    double = embeddings(16, 32)
    single = [x.detach().float().requires_grad_() for x in double]
    for tau in (0.5, 0.01):
        loss = TupleNTXent(tau, variant=variant)
        got, expected = loss(*single), loss(*double)
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(expected.item(), rel=1e-5)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(got, single))


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_identical_and_zero_embeddings_have_finite_gradients(variant):
    same = [torch.ones(4, 3, requires_grad=True) for _ in range(4)]
    opposite = [torch.ones(4, 3), torch.ones(4, 3), -torch.ones(4, 3), -torch.ones(4, 3)]
    zero = [torch.zeros(4, 3) for _ in range(4)]
    for inputs in (same, opposite, zero):
        leaves = [x.detach().requires_grad_() for x in inputs]
        value = TupleNTXent(variant=variant)(*leaves)
        assert torch.isfinite(value)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, leaves))


def test_corrected_punishes_an_empty_partner():
    """A constant SAR embedding costs more than one that differs between places."""
    places = torch.eye(8, dtype=torch.float64)
    loss = TupleNTXent(variant="corrected")
    both = loss(places, places, places, places)
    empty = torch.ones_like(places)
    assert both < loss(places, places, empty, empty)


def test_bad_input_is_named():
    x = torch.randn(1, 4)
    with pytest.raises(ValueError, match="at least two"):
        TupleNTXent()(x, x, x, x)
    with pytest.raises(ValueError, match="same N x C"):
        TupleNTXent()(*[torch.randn(3, 4)] * 3, torch.randn(3, 5))
    with pytest.raises(ValueError, match="variant"):
        TupleNTXent(variant="other")
    with pytest.raises(ValueError, match="positive"):
        TupleNTXent(temperature=0)
