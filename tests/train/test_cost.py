import time

import torch

from tmcnet.train.loop import cost


def test_a_gpu_tells_its_memory_and_a_cpu_has_none_to_tell(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    began = time.monotonic() - 5
    assert cost("cuda", began) == {"device": "cuda", "seconds": 5.0, "gpu_memory_mib": 3.0}
    assert cost("cpu", began).keys() == {"device", "seconds"}
