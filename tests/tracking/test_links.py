from pathlib import Path

import pytest

from tmcnet.tracking.sync import CURRENT_FILTER, KIND_TAG, run_address, searches, ui_address


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:///results/mlflow.db", "http://127.0.0.1:5000"),
        ("https://name:secret@host.invalid:8443/mlflow/", "https://host.invalid:8443/mlflow"),
        ("http://host.invalid", "http://host.invalid"),
    ],
)
def test_links_lead_to_the_server_without_its_password(uri, address):
    assert ui_address(uri) == address
    assert run_address(uri, "7", "abc") == f"{address}/#/experiments/7/runs/abc"
    assert run_address(uri, "7", "") == ""


def test_mlflow_parses_the_filter_of_current_runs():
    from mlflow.utils.search_utils import SearchUtils

    keys = [(part["type"], part["key"]) for part in SearchUtils.parse_search_filter(CURRENT_FILTER)]
    assert keys == [("tag", "kind"), ("tag", "state")]


def test_the_installed_ui_knows_the_kind_of_experiment_which_has_no_python_api():
    import mlflow

    scripts = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    ui = "".join(path.read_text() for path in scripts.glob("*.js"))
    assert {name for name in (*KIND_TAG, *KIND_TAG.values(), "searchFilter", "orderByKey") if name not in ui} == set()


def test_runs_are_compared_side_by_side_unless_there_are_too_many(made):
    few, many = (searches("7", "http://host.invalid", made[1], [f"{i}" for i in range(n)]) for n in (2, 51))
    assert few[-1]["url"].startswith("http://host.invalid/#/compare-runs?runs=%5B%220%22%2C+%221%22%5D")
    assert [link["title"] for link in few[:-1]] == [link["title"] for link in many]
