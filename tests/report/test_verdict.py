import re

import pytest

from tests.report import rendered
from tests.report.results_folder import make_config, write_csv
from tmcnet.config import Budget
from tmcnet.report.names import Series
from tmcnet.report.results import Results
from tmcnet.report.sections_maps import verdict

TMCNET, RANDOM = "mssnet-corrected__tmcnet", "mssnet-corrected__random"
LOGISTIC, BOOSTING = "pixel_logistic-baseline__random", "pixel_boosting-baseline__random"


def sentences(results):
    page = rendered.macro("verdict.html", "sentences", verdict(results))
    return [rendered.text(item) for item in page.split("<li>")[1:]]


def lead(results):
    return rendered.text(rendered.macro("verdict.html", "lead", verdict(results)))


def folder(tmp_path, comparisons, seeds=3):
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


def row(a, b, difference, low, high, significant=True, seeds=3, fraction=5.0, p=0.3):
    values = {"metric": "miou", "difference": difference, "low": low, "high": high, "p": 0.03, "p_holm": p}
    return {"a": a, "b": b, "fraction": fraction, "n_runs": seeds, "significant": significant, **values}


def about(found, word):
    (sentence,) = (one for one in found if one.startswith(word))
    return sentence


def test_an_interval_around_zero_is_not_reliable(tmp_path):
    found = sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.012, -0.010, 0.034, significant=False)]))
    assert about(found, "Pre-training") == (
        "Pre-training (tmcnet) is not shown to pay. With 5\u00a0% of the labels it raised mIoU by 0.012 (95 % "
        "interval \u22120.010 to +0.034, 3 runs each): not reliable, the interval includes 0. The comparison is with "
        "a random start of MSSNet. The weights are of one pre-training: another one may differ."
    )


def test_the_sentence_does_not_depend_on_the_order_of_a_pair(tmp_path):
    one = sentences(folder(tmp_path / "a", [row(TMCNET, RANDOM, -0.05, -0.08, -0.02)]))
    other = sentences(folder(tmp_path / "b", [row(RANDOM, TMCNET, 0.05, 0.02, 0.08)]))
    assert one == other
    found = about(one, "Pre-training (tmcnet) costs accuracy.")
    assert "lowered mIoU by 0.050 (95 % interval \u22120.080 to \u22120.020, 3 runs each): reliable." in found


@pytest.mark.parametrize(("significant", "seeds", "p", "start", "ending"), [
    (True, 8, 0.3, "pays.", ": reliable."),
    (False, 8, 0.3, "is not shown to pay.", ": not reliable after correction for the number of comparisons."),
    (False, 3, 0.02, "is not shown to pay.", ": not reliable, fewer than three draws of few labels are too little."),
    (False, 2, 0.02, ": fewer than three seeds, no statement on reliability.", "seeds: no statement on reliability."),
])  # fmt: skip
def test_the_words_follow_the_statistics(tmp_path, significant, seeds, p, start, ending):
    rows = [row(TMCNET, RANDOM, 0.05, 0.02, 0.08, significant, seeds, p=p)]
    found = about(sentences(folder(tmp_path, rows, seeds)), "Pre-training (tmcnet)")
    assert found.startswith(f"Pre-training (tmcnet){'' if start[0] == ':' else ' '}{start}")
    assert "raised mIoU by 0.050" in found and ending in found


def test_one_seed_far_below_is_no_small_difference(tmp_path):
    rows = [row(TMCNET, RANDOM, -0.3, -0.6, 0.1, significant=False, seeds=1)]
    found = about(sentences(folder(tmp_path, rows, 1)), "Pre-training")
    assert "lowered mIoU by 0.300" in found and "fewer than three seeds: no statement on reliability" in found
    assert "no reliable difference" not in found


def test_self_training_is_judged_against_the_same_network_without_it(tmp_path):
    student, classifier = "mssnet-corrected__self-training", "pixel_boosting-baseline__self-training"
    rows = [
        row(RANDOM, student, -0.02, -0.03, -0.01),
        row(student, TMCNET, 0.5, 0.4, 0.6),  # its weights start at random
        row(BOOSTING, classifier, -0.01, -0.03, 0.02, significant=False),
        row(BOOSTING, student, -0.5, -0.6, -0.4),
    ]
    found = sentences(folder(tmp_path, rows))
    sentence = about(found, "Self-training")
    assert sentence.startswith(
        "Self-training pays in part. For MSSNet (random start) with 5\u00a0% of the labels it raised mIoU by 0.020"
    )
    assert "For pixel-wise gradient boosting with 5\u00a0% of the labels it raised mIoU by 0.010" in sentence
    assert "0.500" not in sentence
    assert not [one for one in found if one.startswith("Pre-training (self-training)")]


def test_fusion_is_judged_against_each_single_sensor(tmp_path):
    sar, optical = "sar_only-baseline__random", "optical_only-baseline__random"
    found = sentences(folder(tmp_path, [row(RANDOM, sar, 0.3, 0.2, 0.4), row(RANDOM, optical, 0.1, 0.05, 0.2)]))
    assert "No evidence on pre-training, more labels: the runs do not compare them." in found
    sentence = about(
        found, "Fusion pays. With 5\u00a0% of the labels, both sensors in MSSNet (random start) instead of optical"
    )
    assert "instead of optical alone raised mIoU by 0.100" in sentence
    assert "both sensors instead of SAR alone raised mIoU by 0.300" in sentence
    mixed = [row(RANDOM, sar, 0.3, 0.2, 0.4), row(RANDOM, optical, 0.01, -0.05, 0.2, significant=False)]
    assert about(sentences(folder(tmp_path / "mixed", mixed)), "Fusion pays in part.")


def test_more_labels_are_judged_by_paired_differences(tmp_path):
    def found(place, significant):
        base = {"network": "mssnet", "variant": "corrected", "method": "random"}
        cells = [(5, 0.5), (25, 0.68), (100, 0.7)]
        rows = [{**base, "fraction": f, "seed": s, "miou": value} for f, value in cells for s in (1, 2)]
        write_csv(place / "metrics.csv", rows)
        gains = [row(RANDOM, RANDOM, 0.2, 0.1, 0.3, significant), row(RANDOM, RANDOM, 0.02, -0.1, 0.1, False)]
        fewer = [{"fraction": 100.0, "b_fraction": labels} for labels in (5.0, 25.0)]
        write_csv(place / "comparisons.csv", [a | b for a, b in zip(gains, fewer, strict=True)])
        results = Results(place, make_config())
        assert results.scores.comparisons == []  # only those with equal labels
        return about(sentences(results), "More labels")

    helped = found(tmp_path / "apart", True)
    assert helped == (
        "More labels help. For MSSNet (random start), 100\u00a0% instead of 5\u00a0% of the labels raised mIoU by "
        "0.200 (95 % interval +0.100 to +0.300, 3 runs each): reliable, and 100\u00a0% instead of 25\u00a0% of the "
        "labels raised mIoU by 0.020 (95 % interval \u22120.100 to +0.100, 3 runs each): not reliable, the interval "
        "includes 0."
    )
    assert found(tmp_path / "overlap", False).startswith("More labels are not shown to help.")


def test_few_seeds_and_missing_runs_are_reported(tmp_path):
    found = " ".join(sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, 0.05, 0.2)])))
    assert "rest on 3 runs, fewer than 5" in found
    assert "30 of 30 planned runs have no scores yet" in found
    many = " ".join(sentences(folder(tmp_path / "many", [row(TMCNET, RANDOM, 0.1, 0.05, 0.2, seeds=6)], seeds=6)))
    assert "fewer than" not in many


def test_without_an_interval_nothing_is_claimed(tmp_path):
    found = about(sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, "", "")])), "Pre-training")
    assert "is not shown to pay" in found and ": not compared with an interval." in found


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
    labels = {key: Series.parse(key).in_sentence for key in (TMCNET, RANDOM, LOGISTIC, BOOSTING)}
    return lead(results), labels


def test_methods_are_ranked_on_the_draws_that_all_of_them_have(tmp_path):
    """Boosting is better in each draw that both have, but had two more difficult ones."""
    base = {"variant": "baseline", "method": "random", "fraction": 5}
    scores = {"pixel_boosting": [0.8, 0.7, 0.6, 0.4, 0.4], "pixel_logistic": [0.79, 0.69, 0.59]}
    rows = [
        {**base, "network": network, "seed": seed, "draw": seed, "miou": value}
        for network, values in scores.items()
        for seed, value in enumerate(values, 1)
    ]
    write_csv(tmp_path / "metrics.csv", rows)
    write_csv(tmp_path / "comparisons.csv", [row(BOOSTING, LOGISTIC, 0.01, 0.005, 0.015)])
    found = lead(Results(tmp_path, make_config()))
    assert "pixel-wise gradient boosting is best" in found.replace(", a simple baseline,", "")
    assert "+0.010 over" in found


def test_one_lucky_run_or_a_missing_score_does_not_change_how_others_are_ranked(tmp_path):
    base = {"variant": "baseline", "method": "random", "fraction": 100}
    scores = {"pixel_boosting": [0.7, 0.83, "", 0.83], "pixel_logistic": [0.72, 0.76, 0.76, 0.76], "pixel_mlp": [0.6]}
    rows = [
        {**base, "network": network, "seed": seed, "draw": 1, "miou": value}
        for network, values in scores.items()
        for seed, value in enumerate(values, 1)
    ]
    write_csv(tmp_path / "metrics.csv", rows)
    results = Results(tmp_path, make_config())
    best = results.scores.leader(Budget("R", 100), "miou")
    assert best is not None and best.network == "pixel_boosting"
    assert results.scores.leader(Budget("R", 100), "oa") is None


@pytest.mark.parametrize(("low", "significant", "word"), [
    (0.02, True, "reliable)"), (-0.05, False, "not reliable, the interval includes 0)"),
])  # fmt: skip
def test_the_lead_names_the_best_method_with_each_share_of_labels(tmp_path, low, significant, word):
    better = row(LOGISTIC, RANDOM, 0.02, low, 0.05, significant=significant, fraction=25.0)
    found, labels = baselines(tmp_path, [row(BOOSTING, TMCNET, -0.1, -0.15, -0.05), better])
    assert (
        f"With 5\u00a0% of the labels, {labels[TMCNET]} is best: mIoU 0.800, +0.100 over the best simple baseline, "
        f"{labels[BOOSTING]} (95 % interval +0.050 to +0.150, reliable)." in found
    )
    assert (
        f"With 25\u00a0% of the labels, {labels[LOGISTIC]}, a simple baseline, is best: mIoU 0.820, +0.020 over the "
        f"best network, {labels[RANDOM]} (95 % interval" in found
    )
    assert f"{word}. With 100" in found
    assert (
        f"With 100\u00a0% of the labels, {labels[TMCNET]} is best: mIoU 0.900, +0.100 over {labels[RANDOM]}" in found
    )
    assert found.endswith("(not compared with an interval).")


def test_the_best_were_picked_by_the_scores_that_are_shown(tmp_path):
    found = sentences(folder(tmp_path, [row(TMCNET, RANDOM, 0.1, 0.05, 0.2)]))
    assert about(found, "The best methods were picked by these test scores")


def test_without_scores_the_one_sentence_claims_nothing(tmp_path):
    assert lead(Results(tmp_path / "nothing", make_config())) == "Nothing can be concluded yet."


def test_the_best_map_is_named_with_its_scores_and_what_they_rest_on(full):
    page = rendered.text(full.page.split('id="maps"')[0])
    found = re.search(r"Best map: (.*?) interval\)\.", page)[1]
    pattern = (
        r"MSSNet \(tmcnet pre-training\), with overall accuracy (0\.\d{3}) \(0\.\d{3} to 0\.\d{3}\) "
        r"and mIoU (0\.\d{3}) \(0\.\d{3} to 0\.\d{3}\) on 2 test blocks, trained with 100.% of the labels \(95 %"
    )
    scores = Results(full.root, full.config).scores
    means = [scores.estimate(Series.parse(TMCNET), Budget("R", 100), metric).mean for metric in ("oa", "miou")]
    assert re.fullmatch(pattern, found).groups() == tuple(f"{mean:.3f}" for mean in means)


def test_the_next_step_is_a_command_for_all_modalities():
    modalities = ["optical", "sar", "ir"]
    found = rendered.text(rendered.macro("verdict.html", "next_step", "a/model.safetensors", modalities))
    command = "tmcnet predict a/model.safetensors --optical optical.tif --sar sar.tif --image ir=ir.tif --out map.tif"
    assert found == f"To map another scene with this network: {command}"


def test_areas_have_intervals_and_say_what_they_assume(full):
    heads, rows = rendered.table(full.page, "class_areas")
    assert heads == ["Class", "Area (ha)", "Share (%)"] and len(rows) == 5
    area = re.fullmatch(r"([\d.\u202f]+) \(([\d.\u202f]+) to ([\d.\u202f]+)\)", rows[0][1]).groups()
    mean, low, high = (float(one.replace("\u202f", "")) for one in area)
    assert (low / mean, high / mean) == pytest.approx((0.8, 1.2), rel=0.01)
    head = rendered.text(full.page.split('id="maps"')[0])
    assert "95 % intervals from 2 test blocks" in head and "test blocks represent the mapped ground" in head
