import json

import pytest

from tmcnet.tracking.records import collect, metric_name, sweep_record


def test_every_run_has_a_record_and_unfinished_ones_are_marked(folder):
    root, config = folder
    (root / "pretrain" / "tmcnet" / "curves.csv").unlink()
    (root / "pretrain" / "tmcnet" / "summary.json").unlink()
    records = {(r.kind, r.name): r for r in collect(root, config)}
    assert len(records) == 2 + 2
    assert not records["pretrain", "tmcnet"].exists
    assert all(r.exists for key, r in records.items() if key != ("pretrain", "tmcnet"))


def test_the_hash_follows_content_not_time(folder):
    root, config = folder
    name = config.runs[0].name

    def digest():
        return next(r for r in collect(root, config) if r.name == name).hash

    before = digest()
    curves = root / "finetune" / name / "curves.csv"
    text = curves.read_text()
    curves.write_text(text)
    assert digest() == before
    curves.write_text(text.replace("0.001", "0.002", 1))
    assert digest() != before
    curves.write_text(text)
    (root / "finetune" / name / "weights.safetensors").write_bytes(b"other weights")
    assert digest() != before
    sweep = sweep_record(root, config).hash
    (root / "metrics.csv").write_text("x\n")
    assert sweep_record(root, config).hash != sweep


def test_threads_and_headings_do_not_change_a_record(folder):
    root, config = folder
    compute = config.compute.model_copy(update={"finetune_threads": 7, "job_gib": 9.0})
    report = config.report.model_copy(update={"title": "Another"})
    other = config.model_copy(update={"compute": compute, "report": report})
    assert sweep_record(root, other).hash == sweep_record(root, config).hash
    assert [r.hash for r in collect(root, other)] == [r.hash for r in collect(root, config)]


def test_costs_come_from_the_benchmark_of_the_job(folder):
    root, config = folder
    name = config.runs[0].name
    path = root / "benchmarks" / "evaluate" / f"{name}.tsv"
    path.parent.mkdir()
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t345.6\t-\n")
    points = {p.name: p.value for p in next(r for r in collect(root, config) if r.name == name).points}
    costs = {key: value for key, value in points.items() if key.startswith("cost/evaluate")}
    assert costs == {"cost/evaluate_seconds": 12.5, "cost/evaluate_peak_memory_mib": 345.6}
    assert points["cost/finetune_peak_memory_mib"] > 300


@pytest.mark.parametrize(("kind", "index"), [("pretrain", 0), ("finetune", 1)])
def test_gpu_memory_is_a_metric_of_both_trainings(folder, kind, index):
    root, config = folder
    name = ("tmcnet", config.runs[0].name)[index]

    def values():
        record = next(r for r in collect(root, config) if (r.kind, r.name) == (kind, name))
        return [p.value for p in record.points if p.name.endswith("gpu_memory_mib")]

    assert values() == []
    path = root / kind / name / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "gpu_memory_mib": 1234.5}))
    assert values() == [1234.5]


@pytest.mark.parametrize(
    ("text", "name"), [("a/b & <c>", "a_b _ _c_"), ("..", "_"), ("forêt", "forêt"), ("built-up", "built-up")]
)
def test_metric_names_hold_no_character_that_mlflow_refuses(text, name):
    assert metric_name(text) == name
