from tests.report import rendered
from tests.report.results_folder import make_config, write_csv
from tmcnet.report.results import Results
from tmcnet.report.sections_scores import ablations


def folder(tmp_path, means, comparisons=(), **sections):
    runs = []
    for key, mean in means.items():
        head, method = key.split("__")
        network, variant = head.split("-")
        cell = {"method": method, "network": network, "variant": variant, "fraction": 5}
        runs += [{**cell, "seed": seed, "miou": mean} for seed in (1, 2)]
    write_csv(tmp_path / "metrics.csv", runs)
    if comparisons:
        write_csv(tmp_path / "comparisons.csv", list(comparisons))
    return Results(tmp_path, make_config(**sections))


def compared(a, b, difference):
    limits = {"low": difference - 0.01, "high": difference + 0.01, "p": 0.01, "significant": True}
    return {"metric": "miou", "a": a, "b": b, "fraction": 5.0, "n_runs": 2, "difference": difference, **limits}


def rows(results, name):
    return rendered.table(rendered.section("ablations", ablations(results)), name)[1]


def test_pretrainings_are_compared_with_the_first_and_list_what_differs(tmp_path):
    methods = {"full": {}, "no_style": {"style": False}, "published": {"variant": "reference"}}
    names = {method: f"mssnet-corrected__{method}" for method in (*methods, "random")}
    means = {names["random"]: 0.5, names["published"]: 0.55, names["no_style"]: 0.56, names["full"]: 0.6}
    results = folder(
        tmp_path,
        means,
        [compared(names["full"], names["no_style"], 0.04)],
        pretrain={"methods": methods, "crop_size": 48},
        finetune={"sweep": [{"methods": [*methods], "fractions": [5]}], "crop_size": 48},
    )
    found = rows(results, "ablations_pretraining")
    assert [row[1:5] for row in found] == [
        ["no_style pre-training", "style False", "5\u00a0%", "0.560"],
        ["published pre-training", "variant reference", "5\u00a0%", "0.550"],
    ]
    assert found[0][5:] == ["\u22120.040", "\u22120.050 to \u22120.030", "significant"]
    assert found[1][5:] == ["\u2013"] * 3, "not compared"


def test_networks_are_compared_with_the_main_one_of_the_same_start(full):
    found = rows(Results(full.root, full.config), "ablations_networks")
    assert {row[0] for row in found} == {"MSSNet (reference)", "Late fusion", "Optical only", "SAR only"}
    changed = {row[0]: row[2] for row in found}
    assert changed["Optical only"] == "without SAR"
    assert changed["MSSNet (reference)"] == "as in the published code"
    assert {row[1] for row in found if row[0] == "MSSNet (reference)"} == {"tmcnet pre-training"}


def test_only_the_published_variant_is_said_to_be_as_published(tmp_path):
    others = ["mssnet-reference", "pixel_boosting_and_mssnet-corrected", "encoder_logistic-baseline"]
    results = folder(tmp_path, {f"{name}__random": 0.5 for name in ["mssnet-corrected", *others]})
    assert sorted(row[2] for row in rows(results, "ablations_networks")) == [
        "as in the published code",
        "classifier on the features of a frozen encoder",
        "mean of several networks",
    ]


def test_a_sweep_without_any_says_so(tmp_path):
    results = folder(tmp_path, {"mssnet-corrected__random": 0.5, "pixel_boosting-baseline__random": 0.5})
    section = ablations(results)
    assert not section["tables"]
    (only,) = rendered.paragraphs(rendered.section("ablations", section))
    assert "nothing to compare" in only
