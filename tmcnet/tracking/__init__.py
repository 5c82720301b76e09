"""Records of runs in MLflow; no other package imports MLflow."""

from tmcnet.tracking.experiment import Row
from tmcnet.tracking.sync import send, sync, tracking_uri

__all__ = ["Row", "send", "sync", "tracking_uri"]
