import pytest

from tmcnet.tracking.links import CURRENT_FILTER, run_address, ui_address


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:///results/mlflow.db", "http://127.0.0.1:5000"),
        ("https://name:secret@host.invalid:8443/mlflow/", "https://host.invalid:8443/mlflow"),
        ("http://host.invalid", "http://host.invalid"),
    ],
)
def test_a_browser_is_sent_to_the_server_without_its_password(uri, address):
    assert ui_address(uri) == address
    assert run_address(uri, "7", "abc") == f"{address}/#/experiments/7/runs/abc"
    assert run_address(uri, "7", "") == ""


def test_the_filter_of_current_runs_is_one_that_mlflow_reads():
    from mlflow.utils.search_utils import SearchUtils

    keys = [(part["type"], part["key"]) for part in SearchUtils.parse_search_filter(CURRENT_FILTER)]
    assert keys == [("tag", "kind"), ("tag", "state")]
