"""What a reader finds in rendered HTML: text, notes, and the cells of tables."""

from __future__ import annotations

import html
import re

from tmcnet.report.build import environment, render_section

CELL = re.compile(r"<(t[hd])[^>]*>(.*?)</\1>", re.DOTALL)


def section(name, values):
    """HTML of one section."""
    return str(render_section(name, values))


def macro(template, name, *values):
    """HTML of one macro of a template."""
    return str(getattr(environment().get_template(template).module, name)(*values))


def text(page):
    """Text without tags, with single spaces; no-break spaces stay."""
    return re.sub(r"[ \n]+", " ", html.unescape(re.sub(r"<[^>]+>", "", page))).strip()


def notes(page, kind="missing"):
    """Texts of the notes of one kind."""
    return [text(found) for found in re.findall(rf'<p class="note {kind}">(.*?)</p>', page, re.DOTALL)]


def paragraphs(page):
    """Texts of the paragraphs that are no notes."""
    return [text(found) for found in re.findall(r"<p>(.*?)</p>", page, re.DOTALL)]


def captions(page):
    """Texts below figures."""
    return [text(found) for found in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]


def table(page, name):
    """Headings and rows of a table; line breaks within cells stay."""
    (found,) = re.findall(rf'id="caption-{name}">.*?</table>', page, re.DOTALL)
    heads, *rows = ([html.unescape(cell) for _, cell in CELL.findall(row)] for row in found.split("<tr>")[1:])
    return heads, rows


def code(page):
    """Text of the first command to copy."""
    return html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", page, re.DOTALL)[1])
