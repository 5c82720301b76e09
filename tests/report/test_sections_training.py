import json

import pytest

from tests.report import rendered
from tests.report.results_folder import make_config, write_csv
from tmcnet.report.results import Results
from tmcnet.report.sections_training import best_start, finetuning, pretraining

METHODS = {"full": {}, "no_style": {"style": False}, "cross": {"method": "cross_modal"}}


def folder(tmp_path, scores, probes=(), methods=METHODS, fractions=(5,)):
    """A results folder with validation scores by start and seed, the same with all label budgets."""
    seeds = list(range(1, 1 + max(map(len, scores.values()))))
    sweep = [{"methods": [*scores], "fractions": list(fractions), "seeds": seeds, "subsets": [1]}]
    config = make_config(pretrain={"methods": methods, "crop_size": 48}, finetune={"sweep": sweep, "crop_size": 48})
    for run in config.runs:
        values = scores[run.method]
        if run.seed <= len(values):
            path = tmp_path / "finetune" / run.name / "summary.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"validation": {"miou": values[run.seed - 1], "oa": 0.9}}))
    for method, value in dict(probes).items():
        rows = [{"step": 0, "loss": 2, "probe_miou": 0.1}, {"step": 10, "loss": 1, "probe_miou": value}]
        write_csv(tmp_path / "pretrain" / method / "curves.csv", [*rows, {"step": 20, "loss": 1, "probe_miou": ""}])
    return Results(tmp_path, config)


def section(results):
    return rendered.macro("starts.html", "section", best_start(results))


def text_of(results):
    (text,) = rendered.paragraphs(section(results))
    return text.replace("\u00a0", " ")


def test_the_best_is_named_with_the_score_of_the_first_of_the_config(tmp_path):
    scores = {"random": [0.58, 0.60], "full": [0.6, 0.61], "no_style": [0.62, 0.61], "cross": [0.5, 0.5]}
    assert text_of(folder(tmp_path, scores)) == (
        "After fine-tuning MSSNet with 5 % of the labels, no_style pre-training (the best of 3 pre-trainings, not "
        "the first of the config) reaches mIoU 0.615 (2 runs) on the validation part, full pre-training 0.605 "
        "(2 runs): 2 paired runs cannot distinguish them. A random start reaches 0.590 (2 runs)."
    )


def test_a_best_that_is_the_first_is_compared_with_the_second(tmp_path):
    text = text_of(folder(tmp_path, {"full": [0.7], "no_style": [0.6], "cross": [0.65]}))
    assert "full pre-training (the best of 3 pre-trainings, the first of the config)" in text
    assert "cross pre-training 0.650 (1 run): 1 paired run cannot distinguish them." in text


@pytest.mark.parametrize(
    ("gains", "phrase"),
    [
        ([0.010, 0.012, 0.011, 0.009, 0.011], "beyond the spread of 5 paired runs"),
        ([0.010, -0.03, 0.011, 0.05, 0.011], "within the spread of 5 paired runs"),
        ([0.010, 0.012, 0.011, 0.009], "4 paired runs cannot distinguish them"),
    ],
)
def test_chance_is_judged_by_paired_runs(tmp_path, gains, phrase):
    base = [0.5, 0.6, 0.55, 0.65, 0.7][: len(gains)]
    scores = {"full": base, "no_style": [b + gain for b, gain in zip(base, gains, strict=True)]}
    assert phrase in text_of(folder(tmp_path, scores))


def test_one_pre_training_is_compared_with_a_random_start_with_the_fewest_labels(tmp_path):
    methods = {"full": {}}
    results = folder(tmp_path, {"random": [0.6, 0.6], "full": [0.5, 0.5]}, methods=methods, fractions=(5, 100))
    text = text_of(results)
    assert text.startswith(
        "After fine-tuning MSSNet with 5 % of the labels, full pre-training (the only pre-training"
    )
    assert text.endswith("random start 0.600 (2 runs): 2 paired runs cannot distinguish them.")


def test_the_probe_has_its_own_sentence(tmp_path):
    results = folder(tmp_path, {"full": [0.6]}, {"full": 0.55, "no_style": 0.57})
    assert text_of(results) == (
        "The probe of frozen features ranks no_style pre-training first (mIoU 0.570; full pre-training, the first of "
        "the config, 0.550); each was pre-trained once, so small differences may be chance."
    )
    other = folder(tmp_path / "other", {"full": [0.6]}, {"full": 0.6, "no_style": 0.57})
    assert "ranks full pre-training first (mIoU 0.600), the first of the config;" in text_of(other)


def test_the_table_has_all_measurements(tmp_path):
    scores = {"random": [0.58], "full": [0.6], "no_style": [0.62, 0.64]}
    results = folder(tmp_path, scores, {"full": 0.5}, fractions=(5, 100))
    heads, rows = rendered.table(section(results), "starts")
    assert heads == ["Start", "Probe, mIoU", "5\u00a0%", "100\u00a0%"]
    assert rows == [
        ["full pre-training", "0.500", "0.600 (1 run)", "0.600 (1 run)"],
        ["no_style pre-training", "\u2013", "0.630 (2 runs)", "0.630 (2 runs)"],
        ["random start", "\u2013", "0.580 (1 run)", "0.580 (1 run)"],
    ]
    assert list(best_start(results)["table"]["R5"]) == pytest.approx([0.6, 0.63, 0.58])


def test_without_a_comparison_there_is_no_statement(tmp_path):
    assert best_start(folder(tmp_path, {"full": [0.6]}, {"full": 0.5})) == {}
    random_only = folder(tmp_path / "other", {"random": [0.6, 0.5]}, {"full": 0.5})
    assert "<h3>" not in rendered.section("pretraining", pretraining(random_only))


def test_self_training_shows_what_the_teacher_gave_and_both_scores(tmp_path):
    results = folder(tmp_path, {"random": [0.6, 0.6], "self-training": [0.66, 0.68], "self-training-2": [0.65, 0.65]})
    assert "best of" not in str(best_start(results))  # self-training is no pre-training
    for run in results.config.runs:
        if run.method != "random":
            path = tmp_path / "finetune" / run.name / "summary.json"
            given = {"self-training": 0.42, "self-training-2": 0.2}[run.method] + run.seed / 100
            shares = {"meadow": {"labelled": 0.3, "given": given}, "water": {"labelled": 0.7, "given": 0.7}}
            taught = {"tiles": 20 + run.seed, "used": 0.75, "classes": shares}
            path.write_text(json.dumps({**json.loads(path.read_text()), "self_training": taught}))
    for seed, score in ((1, 0.64), (2, 0.66)):
        name = f"pixel_boosting_and_pixel_mlp-baseline__random__R5__s{seed}"
        teacher = tmp_path / "finetune" / name / "summary.json"
        teacher.parent.mkdir(parents=True)
        teacher.write_text(json.dumps({"validation": {"miou": score}}))
    rows = finetuning(results)["tables"]["self_training"].round(3)
    assert list(rows["student"]) == ["MSSNet, self-training", "MSSNet, self-training, round 2"]
    assert list(rows["teacher_score"]) == [0.65, 0.67]
    assert list(rows["score"]) == [0.67, 0.65]
    assert list(rows["drift"]) == [0.135, -0.085]
    assert list(rows["drifting"]) == ["meadow", "meadow"]
    assert list(rows["runs"]) == [2, 2]
    assert list(rows["tiles"]) == [21.5, 21.5]
