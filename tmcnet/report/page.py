"""Lay the sections out as one HTML page."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tmcnet.report.blocks import Section


def render_page(title: str, subtitle: str, sections: list[Section]) -> str:
    """The page as text. Everything that comes from data or config is escaped.

    Args:
        title: Heading of the page.
        subtitle: Line below it.
        sections: In the order shown.
    """
    here = files("tmcnet.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    style = Markup(here.joinpath("style.css").read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, sections=sections, style=style)
