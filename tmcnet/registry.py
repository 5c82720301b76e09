"""Names in the config of networks, classifiers and pre-training methods, and where their classes are.

This is the only list of them: the config, its schema, the jobs and the report read it. It imports nothing that is
slow, so that the config can be checked without PyTorch. CONTRIBUTING.md shows how to add to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Network:
    """A segmentation network or pixel-wise classifier.

    Attributes:
        title: Name in the report.
        build: Its class or function, as `module:name`, called with the number of bands of each modality by name, the
            number of classes, and the sizes of the config or, for a classifier, the features of a pixel. Empty for
            networks of one modality, `<name>_only`, which exist for every modality.
        features: For a classifier, the features of a pixel: of its context only, or of a frozen encoder too.
        reference: For a network with a published form, the class of variant `reference`.
    """

    title: str
    build: str
    features: Literal["context", "encoder"] | None = None
    reference: str | None = None


NETWORKS = {
    "mssnet": Network("MSSNet", "tmcnet.model.mssnet:MSSNet", reference="tmcnet.model.mssnet:ReferenceMSSNet"),
    "early_fusion": Network("Early fusion", "tmcnet.model.networks:early_fusion"),
    "late_fusion": Network("Late fusion", "tmcnet.model.networks:late_fusion"),
    "optical_only": Network("Optical only", ""),
    "sar_only": Network("SAR only", ""),
    "encoder_logistic": Network(
        "Logistic regression on encoder features", "tmcnet.model.pixelwise:PixelLogistic", "encoder"
    ),
    "encoder_boosting": Network(
        "Gradient boosting on encoder features", "tmcnet.model.pixelwise:PixelBoosting", "encoder"
    ),
    "encoder_mlp": Network("Neural network on encoder features", "tmcnet.model.pixelwise:PixelMLP", "encoder"),
    "pixel_logistic": Network("Pixel-wise logistic regression", "tmcnet.model.pixelwise:PixelLogistic", "context"),
    "pixel_boosting": Network("Pixel-wise gradient boosting", "tmcnet.model.pixelwise:PixelBoosting", "context"),
    "pixel_mlp": Network("Pixel-wise neural network", "tmcnet.model.pixelwise:PixelMLP", "context"),
}
"""Networks by name, in the order of the report."""

METHODS = {
    "tuples": "tmcnet.train.contrastive:Tuples",
    "simclr": "tmcnet.train.contrastive:SimCLR",
    "cross_modal": "tmcnet.train.contrastive:CrossModal",
}
"""Classes of the pre-training methods by name, as `module:name`."""
