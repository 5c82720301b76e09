"""Names of the demo scenes, without imports that would slow down the parsing of the workflow."""

from __future__ import annotations

from tmcnet.config import DemoConfig

NAMES = (
    *("alder", "birch", "cedar", "dogwood", "elder", "fir", "gorse", "hazel", "iris", "juniper"),
    *("kale", "larch", "maple", "nettle", "oak", "poplar", "quince", "rowan", "spruce", "thorn"),
)


def scene_names(config: DemoConfig) -> list[str]:
    """Names of the `scenes` demo scenes of the config."""
    return list(NAMES[: config.scenes])
