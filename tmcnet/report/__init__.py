"""The report: one page that opens offline, and its figures and tables as files."""

from tmcnet.report.build import build

__all__ = ["build"]
