"""Lay the sections out as one HTML page."""

from __future__ import annotations

import base64
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tmcnet.hashing import bytes_digest
from tmcnet.report.blocks import Section

_SCRIPTS = ("viewer.js", "readings.js")


def render_page(title: str, subtitle: str, sections: list[Section]) -> str:
    """The page as text. Everything that comes from data or config is escaped.

    The browser is told to run the page's own script alone, which it knows by its hash.

    Args:
        title: Heading of the page.
        subtitle: Line below it.
        sections: In the order shown.
    """
    here = files("tmcnet.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = Markup(here.joinpath("style.css").read_text(encoding="utf-8"))
    script = "".join(here.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(bytes.fromhex(bytes_digest(script))).decode("ascii")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        style=style,
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
