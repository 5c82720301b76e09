"""Calibration of probabilities: expected calibration error and temperature scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tmcnet.config import IGNORE

_SMALLEST = 1e-12
"""Minimum probability before the logarithm."""


BINS = 15
"""Equal bins of confidence, as Guo et al. (2017) have them."""


class Calibration:
    """Reliability of the predicted class's probability, accumulated over batches in equal bins of confidence.

    Args:
        temperature: The probabilities are sharpened (below 1) or softened (above 1) by it first.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self._count = np.zeros(BINS, dtype=np.int64)
        self._confidence = np.zeros(BINS)
        self._right = np.zeros(BINS, dtype=np.int64)
        self._loss = 0.0

    @classmethod
    def pooled(cls, records: Sequence[Mapping[str, Any]], temperature: float = 1.0) -> Calibration:
        """Add up several calibrations, each given by its `table` (`bins`) and its `log_loss`."""
        found = cls(temperature)
        for record in records:
            count, confidence, accuracy = (
                np.array([row[key] or 0.0 for row in record["bins"]]) for key in ("count", "confidence", "accuracy")
            )
            found._count += count.astype(np.int64)
            found._confidence += count * confidence
            found._right += np.rint(count * accuracy).astype(np.int64)
            found._loss += float(count.sum()) * (record["log_loss"] or 0.0)
        return found

    def add(self, probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
        """Count one batch.

        Args:
            probabilities: N x K, rows that add up to 1.
            truth: N class ids; `IGNORE` is left out.
        """
        known = truth != IGNORE
        scaled = soften(probabilities[known], self.temperature)
        ids = truth[known].astype(np.int64)
        confidence = scaled.max(axis=1, initial=0.0)
        right = scaled.argmax(axis=1) == ids if len(ids) else np.zeros(0, dtype=bool)
        place = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        self._count += np.bincount(place, minlength=BINS)
        self._confidence += np.bincount(place, weights=confidence, minlength=BINS)
        self._right += np.bincount(place[right], minlength=BINS)
        self._loss += float(-np.log(np.maximum(scaled[np.arange(len(ids)), ids], _SMALLEST)).sum())

    @property
    def error(self) -> float:
        """Expected calibration error: gap between confidence and accuracy, weighted by pixels (Guo et al., 2017)."""
        total = self._count.sum()
        return float(np.abs(self._confidence - self._right).sum() / total) if total else float("nan")

    @property
    def log_loss(self) -> float:
        """Mean negative logarithm of the true class's probability."""
        total = self._count.sum()
        return self._loss / float(total) if total else float("nan")

    def table(self) -> list[dict[str, float | int | None]]:
        """Return one row per bin: limits, pixels, mean confidence and accuracy (None in empty bins)."""
        edges = np.linspace(0, 1, BINS + 1)
        return [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "count": int(n),
                "confidence": float(self._confidence[i] / n) if n else None,
                "accuracy": float(self._right[i] / n) if n else None,
            }
            for i, n in enumerate(self._count)
        ]


def soften(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return probabilities (N x K) after dividing their logits by `temperature`.

    Logarithms of probabilities are logits up to a constant per row, which the softmax removes.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if temperature == 1.0 or len(values) == 0:
        return values
    logits = np.log(np.maximum(values, _SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return the temperature with the lowest log loss, between 0.05 and 20 (Guo et al., 2017).

    Args:
        probabilities: N x K of held-out pixels, none of them from the test part.
        truth: N class ids; `IGNORE` is left out.

    Returns:
        The temperature; 1 where no pixel is labelled.
    """
    known = truth != IGNORE
    if not known.any():
        return 1.0
    logits = np.log(np.maximum(np.asarray(probabilities[known], dtype=np.float64), _SMALLEST))
    ids = truth[known].astype(np.int64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((normaliser - scaled[np.arange(len(ids)), ids]).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
