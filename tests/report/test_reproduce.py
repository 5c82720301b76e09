import pytest

from tests.report import rendered
from tests.report.results_folder import make_results
from tmcnet.report.build import reproduce
from tmcnet.report.results import Results

SNAKEMAKE = "snakemake --cores 8 --configfile my.yaml -- report"
RECORDED = {"git_commit": "abc", "git_dirty": "false", "data_record": "data.dvc", "data_version": "123.dir"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduce") / "results"
    return Results(root, make_results(root))


def section(results, provenance):
    return rendered.section("reproduce", reproduce(results, provenance))


def test_code_and_data_are_fetched_by_their_versions(results):
    page = section(results, RECORDED)
    assert rendered.code(page).splitlines() == ["git checkout abc", "dvc pull data.dvc", SNAKEMAKE]
    assert "<dt>data version</dt><dd>123.dir</dd>" in page
    assert not rendered.notes(page, "caution") + rendered.notes(page)


def test_without_versions_the_reader_has_to_supply_the_data(results):
    page = section(results, {"git_commit": "unknown", "data_version": "not under DVC"})
    assert rendered.code(page) == SNAKEMAKE
    assert "put the same data in place" in rendered.paragraphs(page)[0]


@pytest.mark.parametrize(("key", "word"), [("git_dirty", "commit"), ("data_dirty", "raw data")])
def test_changes_without_a_version_are_reported(results, key, word):
    (note,) = rendered.notes(section(results, RECORDED | {key: "true"}), "caution")
    assert word in note
