"""Probe of frozen features during pre-training: a small classifier fitted on a label fraction.

Pre-training itself never sees a label: the classifier gets features without gradient and is discarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from tmcnet.config import IGNORE
from tmcnet.config.pretraining import ProbeConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import confusion, headline
from tmcnet.model.backbone import OUTPUT_STRIDE
from tmcnet.model.tmcnet import TMCNet
from tmcnet.seeding import generator

NEIGHBOURS = 20
"""Nearest training pixels that vote, weighted by closeness."""

MAX_SOLVER_ITERATIONS = 500
"""Maximum iterations of the solver of the logistic regression."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class _ProbeCells:
    """Labelled cells of a tile: its index, their indices in the flat feature map, and their classes."""

    tile: int
    cells: Labels
    truth: Labels


def cell_labels(label: Labels, stride: int) -> Labels:
    """Return the most frequent class in the cell of each pixel of a feature map, from H x W class ids.

    Pixel k of the map is centred at `stride` times k, the centre of strided convolutions; its cell is the `stride`
    (even) pixels around, clipped to the image. The result is ceil(H / stride) x ceil(W / stride), `IGNORE` where void
    is most frequent; the lowest id in a tie.
    """
    rows, columns = (-(-length // stride) for length in label.shape)
    present, ids = torch.unique(torch.from_numpy(label), return_inverse=True)
    flags = F.one_hot(ids).permute(2, 0, 1).float()
    counts = F.avg_pool2d(flags, stride, padding=stride // 2, divisor_override=1)
    frequent: Labels = present[counts[:, :rows, :columns].argmax(0)].numpy()
    return frequent


def _choose(tiles: TileDataset, part: str, config: ProbeConfig, seed: int) -> list[_ProbeCells]:
    """Draw the cells of a part, the same for every probe."""
    count = min(len(tiles), config.tiles)
    indices = np.sort(generator(seed, "probe tiles", part).choice(len(tiles), count, replace=False))
    chosen = []
    for index in map(int, indices):
        truth = cell_labels(tiles[index].truth.numpy(), OUTPUT_STRIDE).ravel()
        labelled = np.flatnonzero(truth != IGNORE)
        random = generator(seed, "probe pixels", part, tiles.names[index])
        cells = np.sort(random.choice(labelled, min(len(labelled), max(config.pixels // count, 1)), replace=False))
        chosen.append(_ProbeCells(index, cells, truth[cells]))
    if not any(len(some.cells) for some in chosen):
        what = f"no pixel of the {part} tiles of the probe is labelled"
        raise InputError(Problem(str(tiles.store.root), what, "Check the labels, or take more tiles or no probe."))
    return chosen


@torch.no_grad()
def _features(network: TMCNet, tiles: TileDataset, chosen: list[_ProbeCells]) -> Iterator[NDArray[np.float32]]:
    """Yield cells x channels of each tile."""
    device = next(network.parameters()).device
    for some in chosen:
        tile = tiles[some.tile]
        maps = network.features({name: image[None].to(device) for name, image in tile.images.items()})
        yield maps[0].flatten(1)[:, torch.from_numpy(some.cells).to(device)].T.float().cpu().numpy()


def _predict(classifier: str, fitted_on: NDArray[np.float32], truth: Labels, asked: NDArray[np.float32]) -> Labels:
    """Fit a classifier to `fitted_on` features and return the classes of `asked` ones."""
    if len(np.unique(truth)) == 1:
        return np.full(len(asked), truth[0])
    # here, because only trainings with a probe need scikit-learn
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = (
        KNeighborsClassifier(min(NEIGHBOURS, len(truth)), weights="distance", algorithm="brute", metric="cosine")
        if classifier == "knn"
        else make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_SOLVER_ITERATIONS))
    )
    predicted: Labels = model.fit(fitted_on, truth).predict(asked)
    return predicted


class Probe:
    """Score frozen features on K classes: `probe_oa` and `probe_miou`.

    The features are the outputs of all encoders at the output stride. The classifier learns from the labels of a
    label fraction of the training part (`labelled`); the seed draws tiles and pixels.

    Raises:
        InputError: If no pixel of a part is labelled.
    """

    def __init__(
        self,
        network: TMCNet,
        labelled: TileDataset,
        validation: TileDataset,
        classes: int,
        config: ProbeConfig,
        seed: int,
    ) -> None:
        self.network, self.classes, self.classifier = network, classes, config.classifier
        tiles_of = {"labelled": labelled, "validation": validation}
        self.parts = [(tiles, _choose(tiles, part, config, seed)) for part, tiles in tiles_of.items()]

    def score(self) -> dict[str, float]:
        """Return overall accuracy and mIoU on the validation part of a classifier fitted to the labelled part."""
        training = self.network.training
        self.network.eval()
        fitted_on, asked = (np.concatenate(list(_features(self.network, *part))) for part in self.parts)
        self.network.train(training)
        truth, wanted = (np.concatenate([some.truth for some in chosen]) for _, chosen in self.parts)
        with threadpool_limits(torch.get_num_threads()):
            predicted = _predict(self.classifier, fitted_on, truth, asked)
        scores = headline(confusion(wanted, predicted, self.classes))
        return {"probe_oa": scores["oa"], "probe_miou": scores["miou"]}
