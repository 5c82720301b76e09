import pytest

from tests.report.results_folder import make_results
from tmcnet.report.blocks import Code, Facts, Note, Text
from tmcnet.report.results import Results
from tmcnet.report.sections_record import reproduce

SNAKEMAKE = "snakemake --cores 8 --configfile my.yaml -- report"
RECORDED = {"git_commit": "abc", "git_dirty": "false", "data_record": "data.dvc", "data_version": "123.dir"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduce") / "results"
    return Results(root, make_results(root))


def blocks(results, kind, provenance):
    return [block for block in reproduce(results, provenance).blocks if isinstance(block, kind)]


def test_code_and_data_are_fetched_by_their_versions(results):
    assert blocks(results, Code, RECORDED)[0].code.splitlines() == [
        "git checkout abc",
        "dvc pull data.dvc",
        SNAKEMAKE,
    ]
    assert ("data version", "123.dir") in blocks(results, Facts, RECORDED)[0].pairs
    assert not blocks(results, Note, RECORDED)


def test_without_versions_the_data_are_the_reader_s_to_place(results):
    told = {"git_commit": "unknown", "data_version": "not under DVC"}
    assert blocks(results, Code, told)[0].code == SNAKEMAKE
    assert "put the same data in place" in blocks(results, Text, told)[0].text


@pytest.mark.parametrize(("key", "word"), [("git_dirty", "commit"), ("data_dirty", "raw data")])
def test_what_no_version_holds_is_said(results, key, word):
    notes = [note.text for note in blocks(results, Note, RECORDED | {key: "true"})]
    assert len(notes) == 1
    assert word in notes[0]
