"""Resources of jobs."""

from __future__ import annotations

from tmcnet.config import ComputeConfig


def test_each_process_needs_memory_but_the_cache_is_shared() -> None:
    compute = ComputeConfig(cache_gib=1.5, job_gib=2.5)
    assert compute.memory_mb(cached=True, processes=3) == round((3 * 2.5 + 1.5) * 2**30 / 1e6)
    assert compute.memory_mb(cached=True, loaders=4) == round((2.5 + 1.5 + 4 * 0.5) * 2**30 / 1e6)
    assert compute.memory_mb(cached=False, processes=3) == round(3 * 2.5 * 2**30 / 1e6)


def test_the_number_of_processes_reruns_nothing() -> None:
    assert ComputeConfig(devices=4).numerics() == ComputeConfig().numerics()
