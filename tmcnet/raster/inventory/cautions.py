"""Cautions before the training: what a config does not prepare networks for, by the inventory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tmcnet.config import Config
from tmcnet.config.base import only_modality
from tmcnet.errors import format_names

MIN_GAP_SHARE = 0.01
"""Share of a scene from which a gap is reported. If half of the pixels in a gap get a wrong class that would be right
without it, 1 % of gaps costs half a point of overall accuracy, about the half width of the narrowest intervals in
benchmarks/README.md; with less, the map is no worse than a score can show. Resampled edges of images stay below."""


def cautions(entries: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    """Warn of shares taken for percentages, of no label at all, and of gaps that the trainings show to no network.

    Args:
        entries: The scenes or tiles of `inventory.json`.
        config: Its section `finetune` decides what networks see.

    Returns:
        Texts that name the scenes and the keys.
    """
    training = [entry for entry in entries if entry.get("role") == "train"]
    networks = {part.network for run in config.runs for part in (run.members or [run])}
    if not networks:
        what = "`finetune.sweep` is empty: nothing is trained on labels, and only targets up to `pretrain` succeed."
        return [what] if training else []
    found = []
    if max(config.splits.fractions) <= 1 and not config.splits.given_fractions:
        what = f"`splits.fractions` {config.splits.fractions} are percentages, at most"
        found.append(f"{what} {max(config.splits.fractions):g} % of the labels. All labels are 100, a quarter is 25.")
    if training and not any(entry.get("label") for entry in training):
        what = (
            f"none of the {len(training)} scenes or tiles of role `train` has a label, so no network can be trained"
        )
        found.append(f"{what}. Give some, or run only the targets `alignment` and `tiles`.")
    return found if all(map(only_modality, networks)) else [*found, *_gaps(entries, config)]


def _gaps(entries: Sequence[Mapping[str, Any]], config: Config) -> Iterator[str]:
    georeferenced = config.source.layout in ("demo", "scenes")
    for name, sensor in config.sensors.items():
        is_covered = sensor.kind == "reflectance"
        if config.finetune.modality_dropout > 0 or (is_covered and "no_data" in config.finetune.covered_copies):
            continue
        shares = {entry["scene"]: entry.get("images", {}).get(name, {}).get("gap_share", 0.0) for entry in entries}
        found = {scene: share for scene, share in shares.items() if share >= MIN_GAP_SHARE}
        # ready-made tiles count together, as one scene
        if not found or (not georeferenced and sum(shares.values()) < MIN_GAP_SHARE * len(shares)):
            continue
        what = f"{len(found)} of {len(shares)} {'scenes' if georeferenced else 'tiles'} ({format_names(found)})"
        what += f" have no {name} data on up to {max(found.values()):.0%} of their pixels, where another modality has"
        remedy = "`finetune: {modality_dropout: 0.3}`"
        if is_covered:
            remedy = f"`finetune: {{covered_copies: [no_data]}}` or {remedy}"
            yield f"{what}, as under cloud masks. Maps are worse there than without masks. Set {remedy}."
        else:
            yield f"{what}. Maps are bad there, because trainings hardly see such pixels. Set {remedy}."
