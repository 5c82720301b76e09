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


class Calibration:
    """Reliability of the predicted class's probability, accumulated over batches in equal bins of confidence.

    Args:
        bins: Number of bins between 0 and 1.
        temperature: The probabilities are sharpened (below 1) or softened (above 1) by it first.
    """

    def __init__(self, bins: int, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self._count = np.zeros(bins, dtype=np.int64)
        self._confidence = np.zeros(bins)
        self._right = np.zeros(bins, dtype=np.int64)
        self._loss = 0.0

    @classmethod
    def of(cls, table: Sequence[Mapping[str, Any]], log_loss: float | None, temperature: float = 1.0) -> Calibration:
        """Restore from `table` and `log_loss`."""
        found = cls(len(table), temperature)
        found._count += np.array([row["count"] for row in table], dtype=np.int64)
        found._confidence += [row["count"] * (row["confidence"] or 0.0) for row in table]
        found._right += np.rint([row["count"] * (row["accuracy"] or 0.0) for row in table]).astype(np.int64)
        found._loss = float(found._count.sum()) * (log_loss or 0.0)
        return found

    @classmethod
    def together(cls, parts: Sequence[Calibration]) -> Calibration:
        """Pool several calibrations with equally many bins; temperatures are averaged."""
        found = cls(len(parts[0]._count), float(np.mean([part.temperature for part in parts])))
        for part in parts:
            found._count += part._count
            found._confidence += part._confidence
            found._right += part._right
            found._loss += part._loss
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
        bins = len(self._count)
        place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
        self._count += np.bincount(place, minlength=bins)
        self._confidence += np.bincount(place, weights=confidence, minlength=bins)
        self._right += np.bincount(place[right], minlength=bins)
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
        edges = np.linspace(0, 1, len(self._count) + 1)
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
