import csv
import json
import os
import shutil
import socket
import time
from multiprocessing import get_context

import pytest

from tmcnet.config import TrackingConfig
from tmcnet.tracking import sync, tracking_uri
from tmcnet.tracking.__main__ import main

RANDOM, TUPLES = "mssnet-corrected__random__R5__s1", "mssnet-corrected__tmcnet__R5__s1"
NAMES = ["fixture", "tmcnet", "tmcnet_reference", RANDOM, TUPLES]


def with_tracking(config, **changes):
    return config.model_copy(update={"tracking": config.tracking.model_copy(update=changes)})


def table(root):
    with (root / "tracking.csv").open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def statuses(rows):
    return {row.run: row.status for row in rows}


def server(root, config):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(root, config))
    found = client.search_runs([client.get_experiment_by_name(config.name).experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found), "no doubles"
    return client, runs


def points(client, run):
    return [
        (name, p.step, p.value) for name in run.data.metrics for p in client.get_metric_history(run.info.run_id, name)
    ]


def test_everything_about_a_run_is_recorded_once(folder):
    root, config = folder
    environment = dict(os.environ)
    rows = sync(root, config, {"git_commit": "abc", "git_dirty": "false"})
    assert dict(os.environ) == environment
    assert statuses(rows) == dict.fromkeys(NAMES, "new")
    assert list(table(root)) == NAMES

    client, runs = server(root, config)
    run, parent = runs[TUPLES], runs["fixture"]
    tags = {"git_commit": "abc", "git_dirty": "false", "network": "mssnet", "seed": "1", "kind": "finetune"}
    tags |= {"fraction": "5", "budget": "R5", "draw": "1", "method": "tmcnet", "variant": "corrected"}
    tags |= {"mlflow.parentRunId": parent.info.run_id, "host": socket.gethostname(), "state": "current"}
    tags |= {"device": "cpu", "points": ""}
    assert run.data.tags | tags == run.data.tags
    assert len(run.data.tags["manifest_hash"]) == 64
    scores = json.loads((root / "evaluate" / TUPLES / "metrics.json").read_text())
    metrics = run.data.metrics
    assert metrics["miou"] == pytest.approx(scores["miou"])
    assert metrics["all_seeds/miou_low"] == pytest.approx(scores["miou"] - 0.021, abs=1e-6)
    assert metrics["iou/_script_alert_1___script_"] == pytest.approx(scores["iou"]["<script>alert(1)</script>"])
    assert metrics["validation/miou"] == pytest.approx(0.7)
    params = run.data.params
    assert (params["model.backbone"], params["fraction"], params["pretrain.method.variant"]) == (
        "resnet18",
        "5.0",
        "corrected",
    )
    assert params["sensors.optical.bands"] == "['red', 'green', 'blue', 'nir']"
    curve = client.get_metric_history(run.info.run_id, "curve/loss")
    assert [point.step for point in curve] == list(range(10, 210, 10))
    sets = {i.dataset.name: i.tags[0].value for i in run.inputs.dataset_inputs}
    assert sets == {"fixture trainR5": "training", "fixture val": "validation", "fixture test": "testing"}

    def artifacts(run, place=None):
        return {a.path for a in client.list_artifacts(run.info.run_id, place)}

    files = {"curves.csv", "summary.json", "confusion.json", "confusion.png", "environment.txt", "model", "maps"}
    assert artifacts(run) == files
    assert artifacts(run, "maps") == {"maps/alpha.png", "maps/beta.png"}
    assert {"model/MLmodel", "model/input_example.json", "model/requirements.txt"} <= artifacts(run, "model")
    assert artifacts(run, "model/data") == {"model/data/weights.safetensors"}
    assert {"config.yaml", "manifest.json", "metrics.csv"} <= artifacts(parent)
    assert artifacts(runs["tmcnet"]) == {"curves.csv", "summary.json", "environment.txt", "weights.safetensors"}

    about = json.loads((root / "tracking.json").read_text())
    assert about["search"].startswith("http://127.0.0.1:5000/#/experiments/")
    assert table(root)[TUPLES]["url"].endswith(f"/runs/{run.info.run_id}")


def test_a_second_sync_changes_nothing_but_the_version_of_the_data(tracked):
    root, config = tracked
    first = sync(root, config, {"git_commit": "abc"})
    second = sync(root, config, {"git_commit": "another commit, same results", "data_version": "123.dir"})
    assert statuses(second) == dict.fromkeys(NAMES, "unchanged")
    assert [row.run_id for row in first] == [row.run_id for row in second]
    client, runs = server(root, config)
    for run in runs.values():
        assert (run.data.tags["git_commit"], run.data.tags["data_version"]) == ("abc", "123.dir")
        recorded = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert not recorded & {"model", "weights.safetensors"}, "`tracking.weights` is false"


def test_a_record_is_replaced_when_its_content_changes(tracked):
    root, config = tracked
    shutil.move(root / "evaluate" / TUPLES, root / "elsewhere")
    before = {row.run: row for row in sync(root, config, {})}
    assert "miou" not in server(root, config)[1][TUPLES].data.metrics
    shutil.move(root / "elsewhere", root / "evaluate" / TUPLES)
    after = {row.run: row for row in sync(root, config, {})}
    assert statuses(after.values()) == dict.fromkeys(NAMES, "unchanged") | {TUPLES: "replaced"}
    assert after[TUPLES].run_id != before[TUPLES].run_id
    client, runs = server(root, config)
    held = points(client, runs[TUPLES])
    assert len(held) == len(set(held)), "no point twice"
    assert "miou" in runs[TUPLES].data.metrics
    assert sorted(runs) == sorted(NAMES), "the old record is deleted"

    (root / "metrics.csv").write_text("x\n")
    assert statuses(sync(root, config, {}))["fixture"] == "replaced"
    client, runs = server(root, config)
    parents = {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name != "fixture"}
    assert parents == {runs["fixture"].info.run_id}, "the others are nested in the new one"


def test_runs_that_left_the_sweep_are_not_current_and_those_without_files_are_deleted(tracked):
    root, config = tracked
    sync(root, config, {})
    shutil.move(root / "pretrain" / "tmcnet_reference", root / "elsewhere")
    sweep = [part.model_copy(update={"methods": ["tmcnet"]}) for part in config.finetune.sweep]
    smaller = config.model_copy(update={"finetune": config.finetune.model_copy(update={"sweep": sweep})})
    rows = {"fixture": "replaced", "tmcnet": "unchanged", "tmcnet_reference": "missing", TUPLES: "unchanged"}
    assert statuses(sync(root, smaller, {})) == rows
    client, runs = server(root, config)
    states = {name: run.data.tags["state"] for name, run in runs.items()}
    kept = [name for name in NAMES if name != "tmcnet_reference"]
    assert states == dict.fromkeys(kept, "current") | {RANDOM: "left"}
    about = json.loads((root / "tracking.json").read_text())
    for link in about["links"]:
        found = client.search_runs([runs["fixture"].info.experiment_id], link["filter"])
        assert {run.info.run_name for run in found} == ({TUPLES} if "random" not in link["title"] else set())

    shutil.move(root / "elsewhere", root / "pretrain" / "tmcnet_reference")
    shutil.rmtree(root / "finetune" / RANDOM)
    assert statuses(sync(root, smaller, {}))["tmcnet_reference"] == "new"
    runs = server(root, config)[1]
    assert sorted(runs) == sorted(name for name in NAMES if name != RANDOM)
    assert {run.data.tags["state"] for run in runs.values()} == {"current"}


def test_a_folder_that_moved_is_recorded_anew_in_its_new_place(folder, tmp_path):
    root, config = folder
    config = with_tracking(config, weights=False)
    sync(root, config, {})
    old = {path for path in (root / "mlartifacts").rglob("*") if path.is_file()}
    moved = tmp_path / "elsewhere" / "results"
    shutil.copytree(root, moved)
    assert statuses(sync(moved, config, {})) == dict.fromkeys(NAMES, "new")
    assert {path for path in (root / "mlartifacts").rglob("*") if path.is_file()} == old
    client, runs = server(moved, config)
    assert sorted(runs) == sorted(NAMES)
    for run in runs.values():
        assert run.info.artifact_uri.startswith(moved.as_uri())
        assert client.list_artifacts(run.info.run_id)
    assert [e.name for e in client.search_experiments()].count(config.name) == 1
    assert statuses(sync(moved, config, {})) == dict.fromkeys(NAMES, "unchanged")


def test_the_record_of_an_interrupted_sync_is_replaced(tracked, monkeypatch):
    root, config = tracked
    from mlflow import MlflowClient

    log_image = MlflowClient.log_image

    def broken(self, run_id, image, *rest, **more):
        raise ConnectionError("connection lost")

    monkeypatch.setattr(MlflowClient, "log_image", broken)
    rows = statuses(sync(root, config, {}))
    pending = "pending: connection lost"
    assert rows == dict.fromkeys(NAMES[:3], "new") | {RANDOM: pending, TUPLES: pending}
    interrupted = server(root, config)[1][RANDOM].info.run_id
    monkeypatch.setattr(MlflowClient, "log_image", log_image)
    rows = statuses(sync(root, config, {}))
    assert rows == dict.fromkeys(NAMES[:3], "unchanged") | {RANDOM: "replaced", TUPLES: "new"}
    client, runs = server(root, config)
    assert runs[RANDOM].info.run_id != interrupted and sorted(runs) == sorted(NAMES)
    held = points(client, runs[RANDOM])
    assert len(held) == len(set(held))


def test_an_unreachable_server_causes_a_warning_and_send_catches_up(tracked, database, tmp_path, monkeypatch, capsys):
    root, config = tracked
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://name:secret@127.0.0.1:{port}")
    began = time.monotonic()
    rows = sync(root, config, {"git_commit": "abc"})
    assert time.monotonic() - began < 20
    assert list(statuses(rows)) == NAMES
    assert all(row.status.startswith("pending: ") and not row.run_id for row in rows)
    assert "python -m tmcnet.tracking send" in capsys.readouterr().err
    about = (root / "tracking.json").read_text()
    assert json.loads(about)["server"] == f"http://127.0.0.1:{port}"
    assert "secret" not in about
    assert main(["send", str(root)]) == 1
    assert "5 pending" in capsys.readouterr().out

    shutil.copy(database, tmp_path / "server.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    assert main(["send", str(root)]) == 0
    assert capsys.readouterr().out.strip() == "5 new"
    assert {run.data.tags["git_commit"] for run in server(root, config)[1].values()} == {"abc"}


def test_send_names_the_file_that_a_folder_lacks(tmp_path, capsys):
    assert main(["send", str(tmp_path)]) == 1
    assert "tracking.json: holds no config to send the runs with" in capsys.readouterr().err


def test_concurrent_writers_lose_nothing(tracked, tmp_path, monkeypatch):
    """Four results folders, sent to one database that does not exist yet."""
    root, config = tracked
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - imported once, before the processes are forked

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    roots = [tmp_path / f"results{number}" for number in range(4)]
    for copy in roots:
        shutil.copytree(root, copy)
    processes = [get_context("fork").Process(target=sync, args=(copy, config, {})) for copy in roots]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for copy in roots:
        assert {row["status"] for row in table(copy).values()} == {"new"}
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(root, config))
    (experiment,) = [e for e in client.search_experiments() if e.name == config.name]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(NAMES * 4)
    losses = [len(client.get_metric_history(r.info.run_id, "curve/loss")) for r in runs if r.info.run_name == TUPLES]
    assert losses == [20] * 4


def test_the_network_with_the_best_validation_score_is_registered(tracked):
    root, config = tracked[0], with_tracking(tracked[1], weights=True, register_as="land cover")
    for _ in range(2):
        sync(root, config, {})
    client, runs = server(root, config)
    best = client.get_model_version_by_alias("land cover", "best")
    assert (int(best.version), best.run_id) == (1, runs[TUPLES].info.run_id)

    path = root / "finetune" / RANDOM / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "validation": {"miou": 0.9}}))
    sync(root, config, {})
    client, runs = server(root, config)
    best = client.get_model_version_by_alias("land cover", "best")
    assert (int(best.version), best.run_id) == (2, runs[RANDOM].info.run_id)


def test_only_recorded_networks_can_be_registered():
    with pytest.raises(ValueError, match="`register_as` needs `weights: true`"):
        TrackingConfig(register_as="land cover", weights=False)


def test_the_config_precedes_the_environment_and_that_the_folder(folder, monkeypatch, tmp_path):
    _, config = folder
    assert tracking_uri(tmp_path, config) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env.invalid")
    assert tracking_uri(tmp_path, config) == "http://env.invalid"
    assert tracking_uri(tmp_path, with_tracking(config, uri="http://own.invalid")) == "http://own.invalid"


def test_the_ui_opens_only_on_records_and_on_a_free_port(tmp_path, monkeypatch, capsys):
    assert main(["open", str(tmp_path)]) == 1
    assert (
        "mlflow.db: does not exist. Name the results folder (`make mlflow RESULTS=FOLDER`)" in capsys.readouterr().err
    )
    (tmp_path / "mlflow.db").touch()
    started = []
    monkeypatch.setattr("os.execlp", lambda *command: started.append(command))
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr("tmcnet.tracking.__main__._PORT", other.getsockname()[1])
        assert main(["open", str(tmp_path)]) == 1
    assert "UI of another results folder is open. End that program first." in capsys.readouterr().err and not started
    main(["open", str(tmp_path)])
    ((*_, store, _, _),) = started
    assert store == f"sqlite:///{tmp_path / 'mlflow.db'}"
