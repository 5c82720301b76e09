"""The memory of freed tensors that a training keeps has a bound."""

import pytest

from tmcnet import memory


def test_freed_memory_goes_back_when_a_training_grows(monkeypatch):
    resident = iter([1000, 1200, 1249, 1251, 1100, 1300, 1350, 1351, 1300])
    released = []
    monkeypatch.setattr(memory, "SPARE_BYTES", 0)
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(memory, "release_freed_memory", lambda: released.append(1))
    monkeypatch.setattr(memory, "resident_bytes", lambda: next(resident))
    kept, after = memory.KeptMemory(), []  # 1000 in use, 200 more for a step: at most 250 more
    for _ in range(6):
        kept.bound()
        after.append(len(released))
    assert after == [0, 0, 1, 1, 1, 2]  # 1100 in use after the first release


@pytest.mark.skipif(not memory.resident_bytes(), reason="this system does not say how much memory a process has")
def test_resident_memory_is_that_of_this_process():
    memory.release_freed_memory()
    before = memory.resident_bytes()
    block = bytearray(b"x" * 2**26)
    assert 2**25 < memory.resident_bytes() - before < 2**28
    assert len(block) == 2**26
