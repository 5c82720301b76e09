import numpy as np
import pytest

from tmcnet.config import EvaluateConfig, Run
from tmcnet.evaluate.metrics import boundary_f1
from tmcnet.evaluate.summary import intervals, read_counts

RUNS = [Run.parse(f"mssnet-corrected__random__R100__s{seed}") for seed in (1, 2, 3)]
NAMES = [f"t{i}" for i in range(12)]
BLOCKS = {name: str(i // 2) for i, name in enumerate(NAMES)}
CONFIG = EvaluateConfig(bootstrap=400)


def write(root, run, counts, names=NAMES):
    folder = root / run.name
    folder.mkdir()
    confusion = np.ones((len(names), counts.shape[1], counts.shape[1]), np.int64)
    confusion[-1] = 0
    np.savez(folder / "tiles.npz", names=np.array(names), confusion=confusion, boundary=counts)


def boundary_interval(root, blocks):
    found = {metric: one for _, metric, one in intervals(read_counts(root, RUNS, blocks).cells(), CONFIG)}
    return found["boundary_f1"]


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_the_mean_is_that_of_the_runs_and_is_within_the_interval(tmp_path, classes):
    rng = np.random.default_rng(0)
    scores = []
    for run in RUNS:
        counts = rng.integers(20, 60, (len(NAMES), classes, 4))
        counts[:, :, 1] += counts[:, :, 0]
        counts[:, :, 3] += counts[:, :, 2]
        counts[:, 0] = 0  # a class without any boundary has no score
        counts[-1] = 0  # nor has a tile without labels
        write(tmp_path, run, counts)
        scores.append(np.nanmean(boundary_f1(counts.sum(0))))
    found = boundary_interval(tmp_path, BLOCKS)
    assert found.estimate == pytest.approx(np.mean(scores))
    assert 0 <= found.low < found.estimate < found.high <= 1
    assert boundary_interval(tmp_path, BLOCKS) == found


def test_more_blocks_make_it_narrower(tmp_path):
    rng = np.random.default_rng(1)
    widths = []
    for tiles in (6, 60):
        names = [f"t{i}" for i in range(tiles)]
        root = tmp_path / str(tiles)
        root.mkdir()
        quality = rng.beta(4, 2, tiles)[:, None, None] * 100
        for run in RUNS:
            counts = np.concatenate([quality, np.full_like(quality, 100)] * 2, axis=2).repeat(3, 1).astype(np.int64)
            write(root, run, counts, names)
        found = boundary_interval(root, {name: name for name in names})
        widths.append(found.high - found.low)
    assert widths[1] < 0.5 * widths[0]
