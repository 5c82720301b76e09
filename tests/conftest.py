"""What all tests share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

# As in workflow/rules/common.smk, and before torch is loaded: tests side by side take two thirds of the time with it.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from hypothesis import settings

# The same examples in every run: a failure is then a change of the code, never of luck.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The address of an empty bucket on an S3 server of this machine, and that of the same over HTTP."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {"S3_ENDPOINT": host, "HTTPS": "NO", "VIRTUAL_HOSTING": "FALSE", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**settings, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", host.split(":")[1]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(600):
            try:
                put(f"http://{host}/scenes")
                break
            except OSError:
                time.sleep(0.1)
        yield "s3://scenes", f"http://{host}/scenes"
        server.kill()


def put(url: str, content: bytes = b"") -> None:
    """Write an object to the S3 server."""
    headers = {"Authorization": "AWS test:test", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=content, method="PUT", headers=headers)
    urllib.request.urlopen(request, timeout=60).close()
