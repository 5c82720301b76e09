"""Label-efficient land-cover maps from optical and SAR scenes."""

from importlib.metadata import version

__version__ = version("tmcnet")
