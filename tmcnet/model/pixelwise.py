"""Classifiers of the features of single pixels, in the form of networks.

With context features alone they are baselines for the deep networks; features of a frozen encoder beside them show
what its pre-training is worth. They are fitted with scikit-learn in `tmcnet.train.pixelwise`; here they are plain
tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.model.context import ContextFeatures, Perceptron
from tmcnet.model.encoder_features import EncoderFeatures

ABSENT = -1e4
"""Logit of a class without training labels: far below any other, so that it is never predicted."""
HIDDEN_UNITS = (128, 128)
"""Units of the hidden layers of `PixelMLP`."""
MAX_CHUNK_ENTRIES = 2**21
"""Approximate number of pixels times conditions of trees held at once: a few tens of MiB."""
CHUNK_PIXELS = (16, 4096)
"""Minimum and maximum number of pixels that pass through the trees at once; more would not fit the CPU's cache."""


class Pixelwise(nn.Module, ABC):
    """A classifier of the features of each pixel; `bands` counts those of each modality by name."""

    def __init__(self, bands: Mapping[str, int], features: ContextFeatures | EncoderFeatures) -> None:
        super().__init__()
        self.modalities = tuple(bands)
        self.features = features
        self.bands = sum(bands.values())
        self.inputs = self.features.count(self.bands)

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        ordered = [images[name] for name in self.modalities]
        if torch.compiler.is_exporting():  # a loop would fix the number of images in the exported graph
            return self._classify(*ordered)
        tiles = zip(*(torch.split(image, 1) for image in ordered), strict=True)
        return torch.cat([self._classify(*tile) for tile in tiles])

    def _classify(self, *images: Tensor) -> Tensor:
        values = self.features(*images).transpose(0, 1)
        logits = self.scores(values.flatten(1))
        return logits.reshape(-1, *values.shape[1:]).transpose(0, 1)

    @abstractmethod
    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""

    def fit(self, values: Tensor, truth: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Fit a classifier for which `tmcnet.train.pixelwise` has no function; returns its tensors by name.

        `values` are P x F features, `truth` P class ids, `weights` P, 1 on average.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `fit`")


class PixelLogistic(Pixelwise):
    """Logistic regression on scaled features. All its weights are 0 until they are loaded."""

    mean: Tensor
    scale: Tensor

    def __init__(self, bands: Mapping[str, int], classes: int, features: ContextFeatures | EncoderFeatures) -> None:
        super().__init__(bands, features)
        self.weight = nn.Parameter(torch.zeros(classes, self.inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=False)
        self.register_buffer("mean", torch.zeros(self.inputs))
        self.register_buffer("scale", torch.ones(self.inputs))

    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""
        return self.weight @ ((values - self.mean[:, None]) / self.scale[:, None]) + self.bias[:, None]


class PixelMLP(Pixelwise):
    """A multilayer perceptron of two hidden layers. All its logits are 0 until it is fitted.

    Args:
        bands: Number of bands of each modality by name.
        classes: K.
        features: The features of a pixel.
    """

    def __init__(self, bands: Mapping[str, int], classes: int, features: ContextFeatures | EncoderFeatures) -> None:
        super().__init__(bands, features)
        self.perceptron = Perceptron(self.inputs, HIDDEN_UNITS, classes).requires_grad_(False)

    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""
        logits: Tensor = self.perceptron(values.T)
        return logits.T


class PixelBoosting(Pixelwise):
    """Boosted trees; there are none until a state of any number and size of trees is loaded.

    The nodes of all trees are stored one after the other. A node with `feature` -1 is a leaf and adds its `value` to
    the logit of the tree's class; at the others, pixels whose feature is not above `threshold` go `left`.

    All trees are traversed at once and level by level (breadth first): each level has a mask of pixels for each of
    its nodes, and conditions that several nodes share are tested once. On one CPU thread, 128 x 128 pixels in 800
    trees take 0.7 s; if each pixel follows its nodes, they take 6.4 s.
    """

    threshold: Tensor
    value: Tensor
    feature: Tensor
    left: Tensor
    right: Tensor
    root: Tensor
    target: Tensor
    cut_feature: Tensor
    cut_threshold: Tensor
    inner: Tensor
    inner_cut: Tensor
    leaf: Tensor
    leaf_value: Tensor

    def __init__(self, bands: Mapping[str, int], classes: int, features: ContextFeatures | EncoderFeatures) -> None:
        super().__init__(bands, features)
        self.base = nn.Parameter(torch.zeros(classes), requires_grad=False)
        for name in ("threshold", "value"):
            self.register_parameter(name, nn.Parameter(torch.zeros(0), requires_grad=False))
        for name in ("feature", "left", "right", "root", "target"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self._prepare_walk()
        self.register_load_state_dict_pre_hook(_resize_trees)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_accept_trees)  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Check that every node but a root is the child of one earlier node, so that a walk ends.

        Raises:
            ValueError: If the tensors describe no trees.
        """
        places = torch.arange(len(self.feature), device=self.feature.device)
        inner = self.feature >= 0
        children = torch.cat([side[inner] for side in (self.left, self.right)])
        reached = torch.cat([children, self.root]).long()
        sound = (
            {len(tensor) for tensor in (self.threshold, self.left, self.right, self.value)} == {len(places)}
            and len(self.root) == len(self.target)
            and bool((children > places[inner].repeat(2)).all())
            and bool(((reached >= 0) & (reached < len(places))).all())
            and len(torch.unique(reached)) == len(reached)
            and bool((self.feature < self.inputs).all())
            and bool(((self.target >= 0) & (self.target < len(self.base))).all())
        )
        if not sound:
            raise ValueError("its tensors describe no decision trees")

    def _prepare_walk(self) -> None:
        """Derive from the trees what a walk needs: the distinct conditions, and the nodes of each level."""
        inner = (self.feature >= 0).nonzero()[:, 0]
        pairs = torch.stack([self.feature[inner].double(), self.threshold[inner].double()], dim=1)
        cuts, which = torch.unique(pairs, dim=0, return_inverse=True)
        cut_of = torch.zeros(len(self.feature), dtype=torch.long, device=self.feature.device)
        cut_of[inner] = which
        node, target = self.root.long(), self.target.long()
        inner_parts, cut_parts, leaf_parts = [node[:0]], [node[:0]], [node[:0]]
        value_parts = [self.value.new_zeros(0, len(self.base))]
        self.levels: list[tuple[int, int]] = []
        while len(node):
            splits = self.feature[node] >= 0
            going, ending = splits.nonzero()[:, 0], (~splits).nonzero()[:, 0]
            self.levels.append((len(going), len(ending)))
            inner_parts.append(going)
            cut_parts.append(cut_of[node[going]])
            leaf_parts.append(ending)
            value_parts.append(F.one_hot(target[ending], len(self.base)) * self.value[node[ending], None])
            node = torch.cat([side[node[going]].long() for side in (self.left, self.right)])
            target = target[going].repeat(2)
        for name, tensor in (
            ("cut_feature", cuts[:, 0].long()),
            ("cut_threshold", cuts[:, 1:].float()),
            ("inner", torch.cat(inner_parts)),
            ("inner_cut", torch.cat(cut_parts)),
            ("leaf", torch.cat(leaf_parts)),
            ("leaf_value", torch.cat(value_parts).T),
        ):
            self.register_buffer(name, tensor.contiguous(), persistent=False)

    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""
        if torch.compiler.is_exporting():
            return self._walk(values)
        widest = max([len(self.cut_feature), *(going + ending for going, ending in self.levels)])
        fewest, most = CHUNK_PIXELS
        pixels = min(max(MAX_CHUNK_ENTRIES // max(widest, 1), fewest), most)
        return torch.cat([self._walk(chunk) for chunk in torch.split(values, pixels, dim=1)], dim=1)

    def _walk(self, values: Tensor) -> Tensor:
        """Logits of all pixels at once; masks are bytes, which convert to single precision faster than booleans."""
        passed = values.index_select(0, self.cut_feature).le_(self.cut_threshold).to(torch.int8)
        logits = self.base[:, None].expand(-1, values.shape[1])
        reached = torch.ones((len(self.root), values.shape[1]), dtype=torch.int8, device=values.device)
        going, ending = ([sizes[side] for sizes in self.levels] for side in (0, 1))
        inner, cuts = torch.split(self.inner, going), torch.split(self.inner_cut, going)
        leaves, added = torch.split(self.leaf, ending), torch.split(self.leaf_value, ending, dim=1)
        for level in range(len(self.levels)):
            logits = logits + added[level] @ reached.index_select(0, leaves[level]).to(values.dtype)
            above = reached.index_select(0, inner[level])
            to_left = above & passed.index_select(0, cuts[level])
            reached = torch.cat([to_left, above ^ to_left])
        return logits


def _resize_trees(network: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Make room for the nodes and trees of a state before it is loaded."""
    for name in ("feature", "threshold", "left", "right", "value", "root", "target"):
        if prefix + name in state:
            own = getattr(network, name)
            own.data = own.new_empty(state[prefix + name].shape)


def _accept_trees(network: nn.Module, _: object) -> None:
    """Check trees once they are loaded, and prepare the walk through them."""
    assert isinstance(network, PixelBoosting)
    network.check()
    network._prepare_walk()
