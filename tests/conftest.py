"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure is then a change of the code, never of luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
