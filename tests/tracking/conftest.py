import json
import shutil

import pytest

from tests.report.results_folder import make_results

SMALL = {"sweep": [{"methods": ["random", "tmcnet"], "fractions": [5], "seeds": [1]}], "crop_size": 48}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A results folder with two pre-trainings and two runs, both with weights and validation scores; its config."""
    root = tmp_path_factory.mktemp("made") / "results"
    config = make_results(root, finetune=SMALL)
    bands = {"optical": config.sensors["optical"].bands, "sar": config.sensors["sar"].bands}
    scaling = {
        kind: [{"band": b, "low": -2.0, "high": 3.0, "mean": 0, "std": 1} for b in names]
        for kind, names in bands.items()
    }
    (root / "normalisation.json").write_text(json.dumps({**scaling, "clip": 1.5, "n_tiles": 4}))
    for method in config.pretrain.methods:
        (root / "pretrain" / method / "weights.safetensors").write_bytes(method.encode())
    for number, run in enumerate(config.runs):
        path = root / "finetune" / run.name
        (path / "weights.safetensors").write_bytes(run.name.encode())
        summary = json.loads((path / "summary.json").read_text())
        scores = {"validation": {"miou": 0.6 + 0.1 * number, "oa": 0.8}, "device": "cpu"}
        (path / "summary.json").write_text(json.dumps({**summary, **scores}))
    return root, config


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An empty MLflow database, because making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the folder, and its config."""
    root, config = made
    shutil.copytree(root, tmp_path / "results")
    return tmp_path / "results", config


@pytest.fixture
def tracked(folder, database):
    """A copy of the folder with a database, and its config without `tracking.weights`, which is quicker to record."""
    root, config = folder
    shutil.copy(database, root / "mlflow.db")
    return root, config.model_copy(update={"tracking": config.tracking.model_copy(update={"weights": False})})
