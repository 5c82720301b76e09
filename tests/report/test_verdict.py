import pytest

from tests.report import rendered
from tests.report.results_folder import make_config, write_csv
from tmcnet.report.names import Series
from tmcnet.report.results import Results
from tmcnet.report.sections_summary import verdict

TMCNET, RANDOM = "mssnet-corrected__tmcnet", "mssnet-corrected__random"
LOGISTIC, BOOSTING = "pixel_logistic-baseline__random", "pixel_boosting-baseline__random"


def sentences(results):
    page = rendered.macro("verdict.html", "sentences", verdict(results))
    return [rendered.text(item) for item in page.split("<li>")[1:]]


def lead(results):
    return rendered.text(rendered.macro("verdict.html", "lead", verdict(results)))


def folder(tmp_path, comparisons, seeds=2):
    runs = [
        {
            "method": m,
            "network": n,
            "variant": v,
            "fraction": 5,
            "seed": s,
            "oa": 0.8,
            "kappa": 0.7,
            "miou": 0.6,
            "mf1": 0.7,
        }
        for m, n, v in [
            ("random", "mssnet", "corrected"),
            ("tmcnet", "mssnet", "corrected"),
            ("random", "sar_only", "baseline"),
        ]
        for s in range(seeds)
    ]
    write_csv(tmp_path / "metrics.csv", runs)
    write_csv(tmp_path / "comparisons.csv", comparisons)
    return Results(tmp_path, make_config())


def row(a, b, difference, low, high, significant=True, seeds=2, fraction=5.0, p=0.3):
    values = {"metric": "miou", "difference": difference, "low": low, "high": high, "p": 0.03, "p_holm": p}
    return {"a": a, "b": b, "fraction": fraction, "n_runs": seeds, "significant": significant, **values}


def test_an_interval_around_zero_is_no_difference(tmp_path):
    sentence = sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.012, -0.010, 0.034, significant=False)]))[0]
    assert sentence == (
        "With 5\u00a0% of the labels, tmcnet pre-training of MSSNet changed mIoU by +0.012 "
        "(95 % interval \u22120.010 to +0.034, 2 runs each): no reliable difference."
    )


def test_the_sentence_does_not_depend_on_the_order_of_a_pair(tmp_path):
    one = sentences(folder(tmp_path / "a", [row(TMCNET, RANDOM, -0.05, -0.08, -0.02)]))[0]
    other = sentences(folder(tmp_path / "b", [row(RANDOM, TMCNET, 0.05, 0.02, 0.08)]))[0]
    assert one == other
    assert "by \u22120.050 (95 % interval \u22120.080 to \u22120.020" in one
    assert "a reliable loss, but from only 2 runs each" in one


@pytest.mark.parametrize(("significant", "seeds", "ending"), [
    (True, 8, ": a reliable gain."),
    (True, 2, ": a reliable gain, but from only 2 runs each."),
    (False, 8, ": no reliable difference after correction for the number of comparisons (p = 0.30)."),
])  # fmt: skip
def test_the_words_follow_the_statistics(tmp_path, significant, seeds, ending):
    found = sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.05, 0.02, 0.08, significant, seeds)], seeds))
    assert found[0].endswith(ending)


def test_one_seed_is_named_as_the_reason_where_the_p_value_would_do(tmp_path):
    found = sentences(
        folder(tmp_path, [row(TMCNET, RANDOM, 0.05, 0.02, 0.08, significant=False, seeds=1, p=0.02)], 1)
    )
    assert found[0].endswith(
        ": the interval excludes zero, but one seed, or one draw of few labels, is too little to rely on."
    )


def test_fusion_is_judged_against_the_single_sensor(tmp_path):
    found = sentences(folder(tmp_path, [row(RANDOM, "sar_only-baseline__random", 0.3, 0.2, 0.4)]))
    assert "no evidence on pre-training" in found[0]
    assert (
        "fusing both sensors (MSSNet) instead of SAR alone, both from a random start, changed mIoU by +0.300"
        in found[1]
    )


def test_few_seeds_and_missing_runs_are_reported(tmp_path):
    found = " ".join(sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, 0.05, 0.2)])))
    assert "rest on 2 runs, fewer than 5" in found
    assert "30 of 30 planned runs have no scores yet" in found
    many = " ".join(sentences(folder(tmp_path / "many", [row(TMCNET, RANDOM, 0.1, 0.05, 0.2, seeds=6)], seeds=6)))
    assert "fewer than" not in many


def test_without_an_interval_nothing_is_claimed(tmp_path):
    found = sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, "", "")]))
    assert found[0].endswith("without an interval this is no evidence either way.")


def baselines(tmp_path, comparisons):
    """At 5 % TMCNet and boosting are best, at 25 % the random start and logistic regression; none at 100 %."""
    means = {
        5: {TMCNET: 0.8, RANDOM: 0.6, LOGISTIC: 0.5, BOOSTING: 0.7},
        25: {TMCNET: 0.7, RANDOM: 0.8, LOGISTIC: 0.82, BOOSTING: 0.7},
        100: {TMCNET: 0.9, RANDOM: 0.8},
    }
    rows = []
    for fraction, scores in means.items():
        for key, value in scores.items():
            head, method = key.split("__")
            network, variant = head.split("-")
            cell = {"method": method, "network": network, "variant": variant, "fraction": fraction}
            rows += [{**cell, "seed": s, "miou": value} for s in (1, 2)]
    write_csv(tmp_path / "metrics.csv", rows)
    write_csv(tmp_path / "comparisons.csv", comparisons)
    results = Results(tmp_path, make_config())
    found = [sentence for sentence in sentences(results) if "pixel-wise baseline" in sentence]
    assert len(found) == 1
    labels = {key: Series.parse(key).label for key in (TMCNET, RANDOM, LOGISTIC, BOOSTING)}
    labels |= {key: labels[key][:1].lower() + labels[key][1:] for key in (LOGISTIC, BOOSTING)}
    return found[0], labels


@pytest.mark.parametrize(("difference", "judgement"), [(0.1, "better"), (-0.1, "worse")])
def test_the_best_network_is_judged_against_the_best_pixelwise_baseline(tmp_path, difference, judgement):
    limits = difference - 0.05, difference + 0.05
    found, labels = baselines(
        tmp_path,
        [
            row(BOOSTING, TMCNET, -difference, -limits[1], -limits[0]),
            row(BOOSTING, RANDOM, 0.4, 0.3, 0.5),
            row(LOGISTIC, RANDOM, -0.01, -0.02, 0.02, significant=False, fraction=25.0),
        ],
    )
    assert f"with 5\u00a0% of the labels {labels[TMCNET]} is reliably {judgement} than {labels[BOOSTING]} (" in found
    assert (
        f"with 25\u00a0% of the labels {labels[RANDOM]} shows no reliable difference to {labels[LOGISTIC]} (" in found
    )
    assert "100\u00a0%" not in found
    assert "both picked by these scores" in found


def test_a_difference_that_does_not_survive_the_correction_is_none(tmp_path):
    found, labels = baselines(tmp_path, [row(TMCNET, BOOSTING, 0.1, 0.05, 0.15, significant=False)])
    assert f"{labels[TMCNET]} shows no reliable difference to {labels[BOOSTING]}" in found
    assert f"{labels[RANDOM]} and {labels[LOGISTIC]} were not compared" in found


def test_without_baselines_there_is_no_sentence_on_them(tmp_path):
    assert "pixel-wise" not in " ".join(sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, 0.05, 0.2)])))


def test_the_lead_separates_reliable_from_unreliable_differences(tmp_path):
    fused = row(RANDOM, "sar_only-baseline__random", 0.3, 0.2, 0.4, fraction=100.0)
    rows = [
        row(TMCNET, RANDOM, 0.02, -0.01, 0.05, significant=False),
        row(TMCNET, RANDOM, 0.1, 0.05, 0.2, fraction=100.0),
    ]
    found = lead(folder(tmp_path, [*rows, fused]))
    assert found == (
        "With 5\u00a0% of the labels, tmcnet pre-training brought no reliable difference; "
        "with 100\u00a0% of the labels, fusion brought a reliable gain over SAR alone "
        "(mIoU, from as few as 2 runs)."
    )
    loss = [row(TMCNET, RANDOM, -0.1, -0.2, -0.05, seeds=6)]
    assert lead(folder(tmp_path / "loss", loss, seeds=6)).endswith("brought a reliable loss (mIoU).")


def test_without_comparisons_the_one_sentence_claims_nothing(tmp_path):
    other = row(LOGISTIC, BOOSTING, 0.1, 0.05, 0.2)
    assert "has no verdict" in lead(folder(tmp_path, [other]))
    assert lead(Results(tmp_path / "nothing", make_config())) == "Nothing can be concluded yet."
