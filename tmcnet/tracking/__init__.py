"""Records of runs in MLflow; no other package imports MLflow."""

from tmcnet.tracking.sync import Row, send, sync, tracking_uri

__all__ = ["Row", "send", "sync", "tracking_uri"]
