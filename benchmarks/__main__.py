"""Run measurements by name, such as `python -m benchmarks loss views`, or all of them."""

from __future__ import annotations

import sys

import torch

from benchmarks import (
    areas,
    coregistration,
    independent,
    intervals,
    known_warps,
    large_pairs,
    leakage,
    loss,
    maps,
    networks,
    patches,
    reading,
    smooth_warps,
    splits,
    steps,
    throughput,
    tiling,
    verdicts,
    views,
)

MEASURES = {
    "loss": loss.run,
    "views": views.run,
    "patches": patches.run,
    "networks": networks.run,
    "steps": steps.run,
    "coregistration": coregistration.run,
    "independent": independent.run,
    "known_warps": known_warps.run,
    "smooth_warps": smooth_warps.run,
    "verdicts": verdicts.run,
    "large_pairs": large_pairs.run,
    "splits": splits.run,
    "leakage": leakage.run,
    "intervals": intervals.run,
    "areas": areas.run,
    "maps": maps.run,
    "throughput": throughput.run,
    "tiling": tiling.run,
    "reading": reading.run,
}


def main(names: list[str]) -> None:
    """Run the named measurements on one thread; each prints a table."""
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        sys.exit(f"unknown measurement {unknown}; choose from {list(MEASURES)}")
    torch.set_num_threads(1)
    for name in names or MEASURES:
        print(f"\n## {name}\n", flush=True)
        MEASURES[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
