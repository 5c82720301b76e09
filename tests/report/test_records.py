import pytest

from tmcnet.report.records import collect, metric_name, sweep_record


def test_every_run_has_a_record_and_unfinished_ones_say_so(small):
    root, config = small
    (root / "pretrain" / "tmcnet" / "curves.csv").unlink()
    (root / "pretrain" / "tmcnet" / "summary.json").unlink()
    records = {(r.kind, r.name): r for r in collect(root, config)}
    assert len(records) == 2 + 3
    assert not records["pretrain", "tmcnet"].exists
    assert all(r.exists for key, r in records.items() if key != ("pretrain", "tmcnet"))


def test_the_hash_follows_content_not_time(small):
    root, config = small
    name = config.runs[0].name

    def found():
        return next(r for r in collect(root, config) if r.name == name).hash

    before = found()
    curves = root / "finetune" / name / "curves.csv"
    text = curves.read_text()
    curves.write_text(text)
    assert found() == before
    curves.write_text(text.replace("0.001", "0.002", 1))
    assert found() != before
    sweep = sweep_record(root, config).hash
    (root / "metrics.csv").write_text("x\n")
    assert sweep_record(root, config).hash != sweep


@pytest.mark.parametrize(
    ("text", "name"), [("a/b & <c>", "a_b _ _c_"), ("..", "_"), ("forêt", "forêt"), ("built-up", "built-up")]
)
def test_metric_names_are_what_trackers_accept(text, name):
    assert metric_name(text) == name
