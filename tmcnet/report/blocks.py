"""What a page is made of: texts, notes, figures, tables, galleries. No HTML here; the template writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
from markupsafe import Markup

from tmcnet.classes import LandCoverClass
from tmcnet.config import Budget, Run

DASH = "\u2013"
"""Stands in a table where there is no number."""
MINUS = "\u2212"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a reader in a hurry should take home: one sentence, and those that it rests on."""

    kind: ClassVar[str] = "verdict"
    lead: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Note:
    """A paragraph set apart: what is missing (`missing`) or deserves caution (`caution`)."""

    kind: ClassVar[str] = "note"
    text: str
    tone: str = "missing"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """Terms and what they stand for."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        name: File name without ending; unique on the page.
        svg: The chart as cleaned SVG.
        caption: What is to be seen.
        alt: The same for readers who do not see it.
    """

    kind: ClassVar[str] = "figure"
    name: str
    svg: Markup
    caption: str
    alt: str


@dataclass(frozen=True)
class Row:
    """Small charts side by side."""

    kind: ClassVar[str] = "row"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Switch:
    """Charts of which one is shown at a time, by what the reader chooses; `chosen` is shown first.

    Attributes:
        name: Unique on the page.
        label: What is chosen.
        panels: Names of the choices, and their charts; the style sheet knows eight of them at most.
        chosen: Number of the first choice, from 0.
    """

    kind: ClassVar[str] = "switch"
    name: str
    label: str
    panels: Sequence[tuple[str, Figure]]
    chosen: int = 0


@dataclass(frozen=True)
class Picture:
    """One raster image with its title; `uri` is a `data:` address."""

    title: str
    alt: str
    uri: str
    width: int
    height: int
    smooth: bool = True


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side under one caption.

    Attributes:
        caption: What is to be seen.
        pictures: In the order shown.
        wide: Give each more room.
        compare: Numbers, from 0, of the pictures that lie left and right when all are laid over each other, to be
            swiped and zoomed; None for pictures that do not show the same place.
        open: Lay them over each other without being asked.
    """

    kind: ClassVar[str] = "gallery"
    caption: str
    pictures: Sequence[Picture]
    wide: bool = False
    compare: tuple[int, int] | None = None
    open: bool = False


@dataclass(frozen=True)
class Legend:
    """The classes and their colours."""

    kind: ClassVar[str] = "legend"
    classes: Sequence[LandCoverClass]
    extra: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Details:
    """Text that is folded away until asked for."""

    kind: ClassVar[str] = "details"
    summary: str
    code: str


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    kind: ClassVar[str] = "code"
    code: str


@dataclass(frozen=True)
class Table:
    """A table; the first `heads` columns are row headings.

    Attributes:
        name: File name without ending; unique on the page.
        caption: What it shows.
        columns: Titles.
        rows: Cells as shown.
        numeric: Numbers of the columns set flush right.
        frame: The same with full precision, for the CSV file; None: as shown.
        links: Web addresses by the number of their row; they lead from its first cell.
    """

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    heads: int = 1
    frame: pd.DataFrame | None = None
    links: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A web address on a line of its own."""

    kind: ClassVar[str] = "link"
    text: str
    address: str


Block = (
    Text | Verdict | Note | Heading | Facts | Figure | Row | Switch | Gallery | Legend | Details | Code | Table | Link
)


@dataclass
class Section:
    """A part of the page with its own entry in the table of contents."""

    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def charts(self) -> Iterator[Figure]:
        """Every chart, those inside other blocks included."""
        for block in self.blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Row):
                yield from block.figures
            elif isinstance(block, Switch):
                yield from (chart for _, chart in block.panels)


def number_text(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A number for readers, with a real minus sign; an en dash where there is none."""
    if value != value:
        return DASH
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def labels_text(budget: Budget) -> str:
    """A label budget in short, such as `5 %` or `10 points`."""
    if budget.kind == "R":
        return f"{budget.amount:g}\u00a0%"
    return plural(int(budget.amount), "point").replace(" ", "\u00a0")


def labels_phrase(budget: Budget) -> str:
    """A label budget within a sentence, such as `5 % of the labels` or `10 labelled points of each class`."""
    if budget.kind == "R":
        return f"{labels_text(budget)} of the labels"
    return f"{plural(int(budget.amount), 'labelled point')} of each class"


def replicate(run: Run) -> str:
    """Which repetition a run is, such as `seed 1`, or `draw 2 of the labels, seed 1`."""
    return f"seed {run.seed}" if run.draw == 1 else f"draw {run.draw} of the labels, seed {run.seed}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 tile`, `2 tiles`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")


def sentence_case(text: str) -> str:
    """The same text with a capital first letter and nothing else changed."""
    return text[:1].upper() + text[1:]
