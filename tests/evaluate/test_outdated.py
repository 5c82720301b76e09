import os

from tmcnet.config import Run
from tmcnet.evaluate.summary import outdated_runs

NEW, REPEATED, COPIED, LOST, UNSCORED = (Run.parse(f"mssnet-corrected__random__R5__s{seed}") for seed in range(1, 6))


def write(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (age, age))


def test_scores_are_outdated_if_the_network_was_trained_again_since(tmp_path):
    for run, began in ((NEW, 100), (REPEATED, 300), (COPIED, 100), (LOST, 100), (UNSCORED, 100)):
        write(tmp_path / "folds" / "2" / "logs" / "finetune" / f"{run.name}.log", began)
        if run is not UNSCORED:
            write(tmp_path / "evaluate" / run.name / "metrics.json", 200)
        if run is not LOST:
            write(tmp_path / "finetune" / run.name / "weights.safetensors", 400 if run is COPIED else began + 50)
    files = sorted(tmp_path.rglob("*"))
    assert outdated_runs(tmp_path, [NEW, REPEATED, COPIED, LOST, UNSCORED], ["", "folds/2"]) == {REPEATED}
    assert sorted(tmp_path.rglob("*")) == files, "a report deletes nothing"
