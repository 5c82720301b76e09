"""Names of the demo scenes; apart from the rest, since the workflow asks for them while it is being read."""

from __future__ import annotations

from tmcnet.config import DemoConfig

NAMES = (
    *("alder", "birch", "cedar", "dogwood", "elder", "fir", "gorse", "hazel", "iris", "juniper"),
    *("kale", "larch", "maple", "nettle", "oak", "poplar", "quince", "rowan", "spruce", "thorn"),
)


def scene_names(config: DemoConfig) -> list[str]:
    """Names of the demo scenes, as many as the config asks for."""
    return list(NAMES[: config.scenes])
