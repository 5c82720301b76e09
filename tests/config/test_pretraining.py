"""Pre-training methods: what the variants stand for, and that no key is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tmcnet.config import MethodConfig, PretrainConfig
from tmcnet.config.pretraining import TUPLE_KEYS, VARIANTS, Corrections, patch_side
from tmcnet.registry import METHODS


def test_null_is_what_the_variant_says_and_a_given_key_goes_first() -> None:
    for variant, corrections in VARIANTS.items():
        assert MethodConfig(variant=variant).corrections == corrections
    mixed = MethodConfig(variant="reference", perturbed_views="both", positive_in_denominator=True)
    expected = VARIANTS["reference"]._replace(perturbed_views="both", positive_in_denominator=True)
    assert mixed.corrections == expected


def test_the_variants_differ_in_every_correction() -> None:
    one, other = VARIANTS.values()
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert set(Corrections._fields) <= set(MethodConfig.model_fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "simclr", "perturbation": True}, "`perturbation` has no effect in the method `simclr`"),
        ({"method": "cross_modal", "positive_in_denominator": True}, "no effect in the method `cross_modal`"),
        ({"method": "simclr", "modality": "sar"}, "`modality` has no effect in the method `simclr`"),
        ({"shifts": 3}, "`shifts` has no effect with `perturbed_negatives: own`"),
        ({"perturbation": False, "perturbation_weight": 0.5}, "no effect with `perturbation: false`"),
        ({"modality": "optical", "wrong_partners": "sar"}, "no effect with `modality: optical`"),
        ({"modality": "sar", "perturbation": True}, "`perturbation` has no effect with `modality: sar`"),
        ({"lambda_global": 1, "mask_same_tile": False}, "`mask_same_tile` has no effect without the local term"),
        ({"lambda_global": 0, "style": False}, "`style` has no effect without the global term"),
        ({"lambda_global": 0, "dropout_before_statistics": True}, "no effect without the global term"),
        ({"method": "moco"}, "moco"),
        (
            {"method": "simclr", "reconstruction": 1},
            "`reconstruction` needs an encoder for each of several modalities",
        ),
        (
            {"modality": "sar", "reconstruction": 1},
            "`reconstruction` needs an encoder for each of several modalities",
        ),
        ({"hidden": 0.5}, "`hidden` has no effect without `reconstruction`"),
        ({"patch_scales": [1, 0.5, 1]}, "has a scale twice"),
        ({"patch_scales": [1, 0.5], "lambda_global": 1}, "`patch_scales` has no effect without the local term"),
    ],
)
def test_a_key_without_effect_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MethodConfig(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_survives_the_way_through_a_job(method: str) -> None:
    config = MethodConfig(method=method, variant="reference", mask_same_tile=True)
    assert MethodConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.perturbs == (method == "tuples")
    assert all(getattr(config, key) is None for key in TUPLE_KEYS)


def test_shifts_go_with_every_shifted_form() -> None:
    for values in ({"variant": "reference"}, {"perturbed_negatives": "both"}, {"perturbed_negatives": "shifted"}):
        assert MethodConfig(shifts=2, **values).shifts == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(("scales", "sides"), [([1, 0.5, 0.04], "24, 12, 0"), ([1, 0.5, 0.49], "24, 12, 12")])
def test_patches_of_no_pixel_and_of_one_size_are_refused(scales: list[float], sides: str) -> None:
    with pytest.raises(ValidationError, match=sides):
        PretrainConfig(methods={"fine": MethodConfig(patch_scales=scales)})


def test_smaller_patches_have_the_middle_of_the_largest() -> None:
    for size in range(4, 65):
        for scale in (1, 0.75, 0.5, 0.25):
            side = patch_side(size, scale)
            assert (size - side) % 2 == 0 and abs(side - size * scale) <= 1
