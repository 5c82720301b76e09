"""Names of runs, and what a sweep expands to."""

import pytest

from tmcnet.config import Budget, Run, expand_sweep
from tmcnet.config.training import SweepConfig


def names(**keys):
    return [run.name for run in expand_sweep([SweepConfig(**keys)])]


@pytest.mark.parametrize(
    "name",
    [
        "mssnet-corrected__tmcnet__R5__s1",
        "mssnet-reference__my-start__R0.5_s2__s3",
        "pixel_boosting-baseline__random__P10__s1",
        "sar_only-baseline__cross_modal__P100_s12__s4",
    ],
)
def test_names_are_read_back(name):
    run = Run.parse(name)
    assert run.name == name
    assert f"__{run.subset.removeprefix('train')}__" in name


@pytest.mark.parametrize("name", ["mssnet__tmcnet__R5__s1", "mssnet-corrected__tmcnet__5__s1", "R5"])
def test_other_names_are_rejected(name):
    with pytest.raises(ValueError, match="not the name of a run"):
        Run.parse(name)


def test_names_and_order_of_budgets():
    assert Budget("R", 0.5).subset(1) == "trainR0.5"
    assert Budget("P", 10).subset(2) == "trainP10_s2"
    assert Budget("P", 1_000_000).name == "P1000000"
    assert Budget.parse("P10") < Budget.parse("P100") < Budget.parse("R1") < Budget.parse("R100")


def test_list_names_are_parsed_into_budget_and_draw():
    for budget in (Budget("R", 0.5), Budget("P", 10)):
        for draw in (1, 12):
            assert Budget.parse_subset(budget.subset(draw)) == (budget, draw)
    for other in ("train", "val", "trainR", "trainR5.", "trainR5_s", "trainX5"):
        assert Budget.parse_subset(other) is None


def test_seeds_take_the_draw_of_their_number():
    found = names(fractions=[5], seeds=[1, 2])
    assert found == ["mssnet-corrected__random__R5__s1", "mssnet-corrected__random__R5_s2__s2"]


def test_every_draw_meets_every_seed_where_draws_are_listed():
    found = names(fractions=[5], points=[10], subsets=[1, 2], seeds=[1, 2, 3])
    labels = ("P10", "P10_s2", "R5", "R5_s2")
    assert sorted(found) == sorted(f"mssnet-corrected__random__{b}__s{s}" for b in labels for s in (1, 2, 3))


def test_of_all_labels_there_is_one_draw():
    assert names(fractions=[100], seeds=[1, 2]) == [f"mssnet-corrected__random__R100__s{s}" for s in (1, 2)]
    assert names(fractions=[100], subsets=[1, 2], seeds=[1]) == ["mssnet-corrected__random__R100__s1"]


def test_the_record_of_a_run_is_plain():
    record = Run.parse("mssnet-corrected__tmcnet__P10_s2__s3").record
    assert (record["fraction"], record["points"], record["draw"], record["seed"]) == (None, 10, 2, 3)
