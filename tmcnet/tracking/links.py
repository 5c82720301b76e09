"""Saved searches: addresses of the MLflow UI that open with the runs filtered, grouped and with the right columns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from tmcnet.config import Config
from tmcnet.config.runs import BASELINE

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL = "http://127.0.0.1:5000"
"""Where `make mlflow` opens the UI."""
CURRENT = "tags.kind = 'finetune' AND tags.state = 'current'"
"""Filter for the fine-tuned runs of the sweep as it stands."""
_SHARED_VIEW = "mlflow.sharedViewState."
COMPARE = "Means by label fraction, method and network"
"""Title of the view that compares the runs of the sweep."""
_SIDE_BY_SIDE = 50
"""More runs make neither a readable page nor an address that every browser takes."""
_ALWAYS, _SOMETIMES = ("fraction", "method", "network"), ("points", "variant", "draw", "seed")
_REPEATS = ("draw", "seed")
_NAME = "attributes.`Run Name`"


@dataclass(frozen=True)
class Link:
    """An address in the MLflow UI.

    Attributes:
        title: What one sees there.
        url: The address.
        filter: What to type into the search field for the same runs.
    """

    title: str
    url: str
    filter: str


def save_searches(client: MlflowClient, experiment: str, uri: str, config: Config, runs: list[str]) -> list[Link]:
    """Save the views in the experiment and give their addresses.

    The UI keeps a view as a tag of the experiment and opens it by its key.

    Args:
        client: The tracking server.
        experiment: Id of the experiment.
        uri: The tracking address; a server that is not reached by HTTP is looked at with `make mlflow`.
        config: Names the headline metric and the methods.
        runs: Ids of the current fine-tuned runs, for the page that sets them side by side.
    """
    place = f"{ui_address(uri)}/#/experiments/{experiment}/runs"
    metric = config.report.metric
    tags = _telling_tags(config)
    views = {
        "tmcnet-runs": ("All fine-tuned runs, best first", _view(metric, tags, [])),
        "tmcnet-compare": (COMPARE, _view(metric, tags, [tag for tag in tags if tag not in _REPEATS])),
    }
    links = []
    for key, (title, view) in views.items():
        client.set_experiment_tag(experiment, f"{_SHARED_VIEW}{key}", json.dumps(view))
        links.append(Link(title, f"{place}?viewStateShareKey={key}", CURRENT))
    for method in sorted({run.method for run in config.runs}):
        search = f"{CURRENT} AND tags.method = '{method}'"
        query = urlencode({"searchFilter": search, "orderByKey": f"metrics.`{metric}`", "orderByAsc": "false"})
        links.append(Link(f"Runs that start from {method}", f"{place}?{query}", search))
    if 1 < len(runs) <= _SIDE_BY_SIDE:
        query = urlencode({"runs": json.dumps(runs), "experiments": json.dumps([experiment])})
        links.append(Link("Runs side by side", f"{ui_address(uri)}/#/compare-runs?{query}", CURRENT))
    return links


def ui_address(uri: str) -> str:
    """Where a browser finds the runs; user name and password of a server's address are left out."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return LOCAL
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def run_address(uri: str, experiment: str, run_id: str) -> str:
    """The page of one run; empty where there is none."""
    return f"{ui_address(uri)}/#/experiments/{experiment}/runs/{run_id}" if run_id else ""


def as_records(links: list[Link]) -> list[dict[str, str]]:
    """Links as `tracking.json` holds them."""
    return [asdict(link) for link in links]


def _telling_tags(config: Config) -> list[str]:
    """The tags by which the runs of the sweep differ."""
    runs = [run.record for run in config.runs if run.variant != BASELINE] or [run.record for run in config.runs]
    return [*_ALWAYS, *(tag for tag in _SOMETIMES if len({run[tag] for run in runs}) > 1)]


def _view(metric: str, tags: list[str], groups: list[str]) -> dict[str, Any]:
    """A view of the UI: filter, order, columns, and what the runs are averaged by."""
    others = [m for m in ("miou", "oa", "kappa", "mf1") if m != metric]
    scores = [metric, f"all_seeds/{metric}_low", f"all_seeds/{metric}_high", *others, "boundary_f1"]
    narrow = [f"tags.`{tag}`" for tag in tags]
    columns = [*narrow, *(f"metrics.`{s}`" for s in scores)]
    grouping = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": g} for g in groups]}
    return {
        "searchFilter": CURRENT,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": False,
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: 440 if groups else 320, **dict.fromkeys(narrow, 100)},
        "groupBy": grouping if groups else None,
    }
