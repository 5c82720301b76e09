"""Classifiers of single pixels in the form of networks: the baselines that a deep network must beat.

Both see the stacked bands and a few texture features. They are fitted by scikit-learn; what is kept and run here are
plain tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.texture import PixelFeatures

ABSENT = -1e4
"""Logit of a class that no learnt label names: far below any other, so that it is never predicted."""

CHUNK_ENTRIES = 2**21
"""Pixels times conditions of trees held at once, about: a few tens of MiB, whatever the trees."""

CHUNK_PIXELS = (16, 512)
"""Fewest and most pixels that pass through the trees at once; more would leave the processor's cache."""


class Pixelwise(nn.Module, ABC):
    """A classifier of the features of each pixel.

    Args:
        bands: Bands of each modality by name.
        config: Sizes of the windows of the texture features.
    """

    def __init__(self, bands: Mapping[str, int], config: ModelConfig) -> None:
        super().__init__()
        self.modalities = tuple(bands)
        self.features = PixelFeatures(config.texture_windows)
        self.inputs = self.features.count(sum(bands.values()))

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        ordered = [images[name] for name in self.modalities]
        if torch.compiler.is_exporting():  # a loop would fix the number of images in the exported graph
            return self._classify(*ordered)
        places = zip(*(torch.split(image, 1) for image in ordered), strict=True)
        return torch.cat([self._classify(*place) for place in places])

    def _classify(self, *images: Tensor) -> Tensor:
        values = self.features(*images).transpose(0, 1)
        logits = self.scores(values.flatten(1))
        return logits.reshape(-1, *values.shape[1:]).transpose(0, 1)

    @abstractmethod
    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""


class PixelLogistic(Pixelwise):
    """Logistic regression on standardised features. All weights are 0 until they are loaded.

    Args:
        bands: Bands of each modality by name.
        classes: K.
        config: Sizes of the windows of the texture features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        super().__init__(bands, config)
        self.weight = nn.Parameter(torch.zeros(classes, self.inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(classes), requires_grad=False)
        self.register_buffer("mean", torch.zeros(self.inputs))
        self.register_buffer("scale", torch.ones(self.inputs))

    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""
        standardised = (values - self.mean[:, None]) / self.scale[:, None]
        return self.weight @ standardised + self.bias[:, None]


class PixelBoosting(Pixelwise):
    """Boosted trees; there are none until some are loaded, of whatever number and size.

    The nodes of all trees stand one after the other. A node with `feature` -1 is a leaf and adds its `value` to the
    logit of the tree's class; at the others, pixels whose feature is not above `threshold` go `left`.

    All trees are walked at once and level by level, as in breadth-first tree traversal on vector machines: each level
    holds a mask of pixels for each of its nodes. Conditions shared by several nodes are tested once.

    Args:
        bands: Bands of each modality by name.
        classes: K.
        config: Sizes of the windows of the texture features.
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

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        super().__init__(bands, config)
        self.base = nn.Parameter(torch.zeros(classes), requires_grad=False)
        for name in ("threshold", "value"):
            self.register_parameter(name, nn.Parameter(torch.zeros(0), requires_grad=False))
        for name in ("feature", "left", "right", "root", "target"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self._arrange()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
        """Take whatever number of nodes and trees the tensors hold.

        Raises:
            ValueError: If the tensors describe no trees.
        """
        for name in ("feature", "threshold", "left", "right", "value", "root", "target"):
            if prefix + name in state_dict:
                mine = getattr(self, name)
                mine.data = mine.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._check()
        self._arrange()

    def _check(self) -> None:
        """Every node but a root is the child of one earlier node; so a walk ends, and levels hold no node twice."""
        places = torch.arange(len(self.feature), device=self.feature.device)
        inner = self.feature >= 0
        children = torch.cat([side[inner] for side in (self.left, self.right)])
        reached = torch.cat([children, self.root]).long()
        sound = (
            {len(part) for part in (self.threshold, self.left, self.right, self.value)} == {len(places)}
            and len(self.root) == len(self.target)
            and bool((children > places[inner].repeat(2)).all())
            and bool(((reached >= 0) & (reached < len(places))).all())
            and len(torch.unique(reached)) == len(reached)
            and bool((self.feature < self.inputs).all())
            and bool(((self.target >= 0) & (self.target < len(self.base))).all())
        )
        if not sound:
            raise ValueError("its tensors describe no decision trees")

    def _arrange(self) -> None:
        """Derive the order of the walk from the trees: the distinct conditions, and the nodes of each level."""
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
        self._derived("cut_feature", cuts[:, 0].long())
        self._derived("cut_threshold", cuts[:, 1:].float())
        self._derived("inner", torch.cat(inner_parts))
        self._derived("inner_cut", torch.cat(cut_parts))
        self._derived("leaf", torch.cat(leaf_parts))
        self._derived("leaf_value", torch.cat(value_parts).T)

    def _derived(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor.contiguous(), persistent=False)

    def scores(self, values: Tensor) -> Tensor:
        """Logits K x P of the features F x P of P pixels."""
        if torch.compiler.is_exporting():
            return self._walk(values)
        widest = max([len(self.cut_feature), *(going + ending for going, ending in self.levels)])
        fewest, most = CHUNK_PIXELS
        pixels = min(max(CHUNK_ENTRIES // max(widest, 1), fewest), most)
        return torch.cat([self._walk(part) for part in torch.split(values, pixels, dim=1)], dim=1)

    def _walk(self, values: Tensor) -> Tensor:
        """Logits of all pixels at once; masks are bytes, which turn into single precision faster than booleans."""
        passed = values.index_select(0, self.cut_feature).le_(self.cut_threshold).to(torch.int8)
        logits = self.base[:, None].expand(-1, values.shape[1])
        here = torch.ones((len(self.root), values.shape[1]), dtype=torch.int8, device=values.device)
        going, ending = ([sizes[side] for sizes in self.levels] for side in (0, 1))
        inner, cuts = torch.split(self.inner, going), torch.split(self.inner_cut, going)
        leaves, added = torch.split(self.leaf, ending), torch.split(self.leaf_value, ending, dim=1)
        for level in range(len(self.levels)):
            logits = logits + added[level] @ here.index_select(0, leaves[level]).to(values.dtype)
            above = here.index_select(0, inner[level])
            to_left = above & passed.index_select(0, cuts[level])
            here = torch.cat([to_left, above ^ to_left])
        return logits
