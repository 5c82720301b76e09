import os

from tmcnet.config import Run
from tmcnet.evaluate.summary import forget_outdated

NEW, REPEATED, GONE = (Run.parse(f"mssnet-corrected__random__R5__s{seed}") for seed in (1, 2, 3))


def write(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (age, age))
    return path


def test_only_what_belongs_to_other_weights_goes(tmp_path):
    scores = {
        run: [
            write(tmp_path / "evaluate" / run.name / "metrics.json", 200),
            write(tmp_path / "maps" / f"{run.name}.csv", 200),
            write(tmp_path / "maps" / "north" / f"{run.name}.tif", 200),
            write(tmp_path / "maps" / "north" / f"{run.name}_confidence.tif", 200),
            write(tmp_path / "maps" / "north" / f"{run.name}.png", 200),
            write(tmp_path / "maps" / f"{run.name}_areas.csv", 200),
            write(tmp_path / "models" / run.name / "model.safetensors", 200),
        ]
        for run in (NEW, REPEATED, GONE)
    }
    write(tmp_path / "finetune" / NEW.name / "weights.safetensors", 100)
    write(tmp_path / "finetune" / REPEATED.name / "weights.safetensors", 300)
    other = write(tmp_path / "maps" / "north" / "a-model-from-a-file.tif", 100)
    assert set(forget_outdated(tmp_path, [NEW, REPEATED, GONE])) == {*scores[REPEATED], *scores[GONE]}
    assert all(path.exists() for path in [*scores[NEW], other])
    assert not any(path.exists() for path in [*scores[REPEATED], *scores[GONE]])
