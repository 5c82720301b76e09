"""The pre-training methods: a file each, named as in the config (`tmcnet.config.pretraining.Method`)."""

from __future__ import annotations

from importlib import import_module

from tmcnet.config import MethodConfig
from tmcnet.train.methods.base import PretrainingMethod

__all__ = ["PretrainingMethod", "build_method"]


def build_method(config: MethodConfig) -> PretrainingMethod:
    """The method that a config names: the class `METHOD` of its file."""
    kind: type[PretrainingMethod] = import_module(f"{__name__}.{config.method}").METHOD
    return kind(config)
