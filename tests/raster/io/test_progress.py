import pytest

from tmcnet.raster.io import progress
from tmcnet.raster.io.progress import step, watched


def test_a_long_step_tells_how_far_it_is(monkeypatch, capsys):
    clock = iter(range(0, 100, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    parts = [((row, 0, 2, 10), row) for row in range(0, 10, 2)]
    assert [row for _, row in watched(parts, 100, "label")] == [0, 2, 4, 6, 8]
    # six seconds pass between two looks at the clock
    assert capsys.readouterr().err.splitlines() == ["label: 40%", "label: 80%"]


def test_a_short_step_says_what_it_took_and_a_failed_one_nothing(capsys):
    with step("picture"):
        assert not capsys.readouterr().err
    assert capsys.readouterr().err == "picture: 0.0 s\n"
    with pytest.raises(ValueError, match="x"), step("matching"):
        raise ValueError("x")
    assert not capsys.readouterr().err
