"""Random generators that depend on what is drawn, never on when or where it is drawn."""

from __future__ import annotations

import numpy as np

from tmcnet.hashing import bytes_digest


def derive_seed(seed: int, purpose: str, *items: str | int) -> int:
    """A 63-bit seed that is the same on any machine for the same arguments.

    A run's own seed, what is drawn, such as `views`, and what it is drawn for, such as a tile name and an epoch.
    """
    text = "\x1f".join([str(seed), purpose, *map(str, items)])
    return int(bytes_digest(text)[:16], 16) >> 1


def generator(seed: int, purpose: str, *items: str | int) -> np.random.Generator:
    """A NumPy generator seeded by (seed, purpose, items)."""
    return np.random.default_rng(derive_seed(seed, purpose, *items))
