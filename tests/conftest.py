"""What all tests share."""

from __future__ import annotations

import os

# As in workflow/rules/common.smk, and before torch is loaded: tests side by side take two thirds of the time with it.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from hypothesis import settings

# The same examples in every run: a failure is then a change of the code, never of luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
