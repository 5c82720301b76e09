"""The record of runs in MLflow, and the only place that knows of it."""

from tmcnet.tracking.store import Row
from tmcnet.tracking.sync import send, sync, tracking_uri

__all__ = ["Row", "send", "sync", "tracking_uri"]
