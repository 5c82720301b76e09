"""Numbers as files hold them."""

from __future__ import annotations

import math
from typing import Any


def without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON values of any kind
    """The same JSON value with None in place of every NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
