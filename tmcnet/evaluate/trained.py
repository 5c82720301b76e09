"""A fine-tuned network with everything needed to use it, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tmcnet.classes import ClassTable
from tmcnet.config import ModelConfig, Run, SensorsConfig
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import without_nan
from tmcnet.model.networks import build_network
from tmcnet.model.weights import read_weights, save_weights

KIND = "segmentation"


@dataclass(frozen=True)
class Trained:
    """A segmentation network and what it was trained on.

    Attributes:
        network: Maps normalised images of all modalities to logits.
        run: The run that it comes from.
        model: Sizes of the network.
        sensors: The bands that it takes.
        classes: Its classes.
        normalisation: The scaling that its inputs need.
        metrics: Scores on the validation part; None where a score is not defined.
    """

    network: nn.Module
    run: Run
    model: ModelConfig
    sensors: SensorsConfig
    classes: ClassTable
    normalisation: Normalisation
    metrics: Mapping[str, float | None]

    def write(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write the network, its config and further settings of its training."""
        header = {
            "kind": KIND,
            "config": {"model": self.model.model_dump(), "sensors": self.sensors.model_dump(), **settings},
            "normalisation": self.normalisation.to_dict(),
            "run": self.run.record,
            "classes": [asdict(c) for c in self.classes.classes],
            "metrics": without_nan(dict(self.metrics)),
        }
        save_weights(path, self.network.state_dict(), header)

    @classmethod
    def read(cls, path: Path, device: torch.device | None = None) -> Trained:
        """Rebuild a network from its file, in evaluation mode.

        Raises:
            InputError: If the file is no fine-tuned network, or its header and its tensors do not agree.
        """
        state, header = read_weights(path)
        if header["kind"] != KIND:
            what = f"holds weights of kind `{header['kind']}`, not a fine-tuned network"
            raise InputError(Problem(str(path), what, "Give the weights that fine-tuning wrote."))
        try:
            run = Run.parse(header["run"]["name"])
            model = ModelConfig.model_validate(header["config"]["model"])
            sensors = SensorsConfig.model_validate(header["config"]["sensors"])
            classes = ClassTable.of((c["name"], c["color"]) for c in header["classes"])
            normalisation = Normalisation.from_dict(header["normalisation"])
            network = build_network(run.network, run.variant, sensors.band_counts, len(classes), model)
            network.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            what = f"its header does not describe its tensors ({str(error).splitlines()[0]})"
            raise InputError(Problem(str(path), what, "Fine-tune again with this version of the project.")) from error
        # as in training: convolutions are faster this way
        network.to(device or torch.device("cpu"), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return cls(network, run, model, sensors, classes, normalisation, header.get("metrics", {}))
