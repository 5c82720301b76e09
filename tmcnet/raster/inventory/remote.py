"""Stamps of remote rasters: what says, without reading them, that their content has changed.

GDAL reads the rasters themselves. It gives no access to the headers of an answer, so fsspec asks for them, with the
plugin of the storage: s3fs for `s3://`, gcsfs for `gs://`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from tmcnet.errors import InputError, Problem
from tmcnet.raster.inventory.names import Name, is_remote

REQUESTS_AT_ONCE = 16
_URLS = {
    r"/vsicurl/(https?://.+)": r"\1",
    r"/vsis3/(.+)": r"s3://\1",
    r"/vsigs/(.+)": r"gs://\1",
    r"((?:https?|s3|gs)://.+)": r"\1",
}
"""Names of GDAL that are files on a server, and their addresses."""
_PLUGINS = {"s3": "s3fs", "gs": "gcsfs"}


def remote_stamps(names: Iterable[Name]) -> list[str]:
    """Return the name and stamp of each remote raster that is a file: its ETag, else its size and time.

    Local rasters, and remote ones that are services or virtual rasters with remote sources, have none.

    Args:
        names: Names of rasters.

    Raises:
        InputError: If a file does not exist or cannot be reached, or the plugin of its storage is not installed.

    Example:
        >>> remote_stamps(["s3://bucket/scene/optical.tif"])
        ['s3://bucket/scene/optical.tif "9b2cf5..."']
    """
    files = [name for name in dict.fromkeys(map(str, filter(is_remote, names))) if _address(name)]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(_stamp, files))


def forget() -> None:
    """Ask the servers again next time; answers are kept as long as the process lives."""
    _stamp.cache_clear()


def _address(name: str) -> str:
    found = ((re.fullmatch(pattern, name), url) for pattern, url in _URLS.items())
    return next((match.expand(url) for match, url in found if match), "")


@cache
def _stamp(name: str) -> str:
    import fsspec  # late: the workflow also reads names without remote files

    address = _address(name)
    scheme = address.split(":")[0]
    try:
        system, path = fsspec.core.url_to_fs(address, **(_s3_options() if scheme == "s3" else {}))
        system.invalidate_cache()
        known = system.info(path)
    except ImportError:
        plugin = _PLUGINS.get(scheme, "fsspec")
        what = f"is read with the Python package {plugin}, which is not installed"
        raise InputError(Problem(name, what, f"Run `pip install {plugin}`.")) from None
    except Exception as error:  # each storage has errors of its own
        what = f"cannot be reached ({type(error).__name__}: {error})"
        remedy = "Check the address, the network, and the credentials in the environment."
        raise InputError(Problem(name, what, remedy)) from None
    tag = known.get("ETag") or known.get("etag")
    stamp = tag or f"{known.get('size')} {known.get('LastModified') or known.get('Last-Modified') or ''}".strip()
    return f"{name} {stamp}"


def _s3_options() -> dict[str, Any]:
    """The options of s3fs that have other names in GDAL; keys and regions have the same ones in both."""
    options: dict[str, Any] = {"anon": os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE")}
    if endpoint := os.environ.get("AWS_S3_ENDPOINT"):
        plain = os.environ.get("AWS_HTTPS", "").upper() in ("NO", "FALSE")
        options["endpoint_url"] = f"{'http' if plain else 'https'}://{endpoint.split('://')[-1]}"
    return options
