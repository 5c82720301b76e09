import json
from pathlib import Path

import pytest

from tmcnet.tracking.experiment import KIND_TAG
from tmcnet.tracking.links import (
    CURRENT_FILTER,
    SHARED_VIEW_QUERY,
    SHARED_VIEW_TAG,
    run_address,
    save_searches,
    ui_address,
)


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


def test_the_installed_ui_knows_every_name_that_has_no_python_api(made):
    import mlflow

    views = {}

    class Client:
        def set_experiment_tag(self, experiment, key, value):
            assert key.startswith(SHARED_VIEW_TAG)
            views[key.removeprefix(SHARED_VIEW_TAG)] = json.loads(value)

    links = save_searches(Client(), "7", "http://host.invalid", made[1], [])
    assert set(views) == {link["url"].split(f"?{SHARED_VIEW_QUERY}=")[1] for link in links[:2]}
    groups = views["tmcnet-compare"]["groupBy"]
    fields = {*views["tmcnet-compare"], *groups, *groups["groupByKeys"][0]}
    scripts = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    ui = "".join(path.read_text() for path in scripts.glob("*.js"))
    names = {f'"{SHARED_VIEW_TAG}"', f'"{SHARED_VIEW_QUERY}"', *KIND_TAG, *KIND_TAG.values(), *fields}
    assert {name for name in names if name not in ui} == set()
