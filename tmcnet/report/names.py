"""Names and numbers as readers see them, the same in figures, tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tmcnet.config import RANDOM_START, Budget, Run, SensorsConfig
from tmcnet.config.training import has_start, members_of, self_training_round
from tmcnet.registry import NETWORKS

DASH = "\u2013"
"""Shown where there is no number."""
MINUS = "\u2212"

METRIC_NAMES = {
    "oa": "OA",
    "kappa": "kappa",
    "miou": "mIoU",
    "mf1": "mean F1",
    "ece": "ECE",
    "boundary_f1": "Boundary F1",
}


@dataclass(frozen=True, order=True)
class Series:
    """One line of the label-efficiency figure: a network, its variant and how it started."""

    network: str
    variant: str
    method: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """The series of a run."""
        return cls(run.network, run.variant, run.method)

    @classmethod
    def parse(cls, key: str) -> Self:
        """Read a `key` back."""
        head, _, method = key.partition("__")
        network, _, variant = head.partition("-")
        return cls(network, variant, method)

    @property
    def key(self) -> str:
        """Name in run names and tables, such as `mssnet-corrected__tmcnet`."""
        return f"{self.network}-{self.variant}__{self.method}"

    @property
    def network_label(self) -> str:
        """Name of the network for readers."""
        return network_label(self.network, self.variant)

    @property
    def start_label(self) -> str:
        """How the network started, for readers; pixel-wise baselines have no start."""
        return method_label(self.method) if has_start(self.network, self.method) else DASH

    @property
    def in_sentence(self) -> str:
        """Name within a sentence, such as `MSSNet (random start)`."""
        name = in_sentence(self.network_label)
        return f"{name} ({self.start_label})" if has_start(self.network, self.method) else name

    @property
    def label(self) -> str:
        """Name for readers, such as `MSSNet, tmcnet pre-training`."""
        return (
            f"{self.network_label}, {self.start_label}"
            if has_start(self.network, self.method)
            else self.network_label
        )


def network_label(network: str, variant: str) -> str:
    """Name of a network for readers; the variant is named only where it is not the default."""
    members = [in_sentence(network_label(member, "")) for member in members_of(network)]
    title = NETWORKS[network].title if network in NETWORKS else network
    name = f"Mean of {', '.join(members[:-1])} and {members[-1]}" if members else title
    return f"{name} (reference)" if variant == "reference" else name


def in_sentence(name: str) -> str:
    """A name within a sentence: without the capital, unless it begins with several, such as `MSSNet`."""
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def method_label(method: str) -> str:
    """How a run started, for readers."""
    number = self_training_round(method)
    if number:
        return "self-training" if number == 1 else f"self-training, round {number}"
    return "random start" if method == RANDOM_START else f"{method} pre-training"


def series_order(series: Series | Run) -> tuple[object, ...]:
    """Sort key: networks as listed, corrected before reference, pre-trained before random start."""
    network = network_order((series.network, series.variant))
    return (*network, series.method == RANDOM_START, series.method)


def network_order(network: tuple[str, str]) -> tuple[int, str, str]:
    """Sort key of a network and its variant: as in the registry."""
    known = list(NETWORKS)
    return (known.index(network[0]) if network[0] in known else len(known), *network)


def modality_titles(sensors: SensorsConfig) -> dict[str, str]:
    """Modalities for readers. Under `sar` a config may also have an elevation model or a second optical image."""
    sar = sensors["sar"].kind
    known = {"optical": "Optical", "sar": "SAR" if sar == "backscatter" else sar.capitalize()}
    return {name: known.get(name, name.replace("_", " ")) for name in sensors}


def number_text(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A number with a real minus sign; an en dash where there is none."""
    if value != value:
        return DASH
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def interval_text(low: float, high: float) -> str:
    """Limits of a difference, such as `-0.010 to +0.034`."""
    return f"{number_text(low, sign=True)} to {number_text(high, sign=True)}"


def plural(count: int, one: str) -> str:
    """`1 tile`, `2 tiles`."""
    return f"{count:,} {one if count == 1 else one + 's'}".replace(",", "\u202f")


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


def run_label(run: Run) -> str:
    """Network, start and labels of a run for legends."""
    return f"{Series.of(run).label}, {labels_text(run.budget)}"


def replicate(run: Run) -> str:
    """Which repetition a run is, such as `seed 1`, or `draw 2 of the labels, seed 1`."""
    return f"seed {run.seed}" if run.draw == 1 else f"draw {run.draw} of the labels, seed {run.seed}"


def duration(seconds: float) -> str:
    """A duration such as `12.3 s`, `4 min 05 s` or `2 h 03 min`."""
    if seconds != seconds:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def metres(length: float) -> str:
    """A round length such as `500 m` or `2 km`."""
    return f"{length / 1000:g}\u00a0km" if length >= 1000 else f"{length:g}\u00a0m"


def area_text(value: float) -> str:
    """Hectares or percent with three digits or more, such as `1 234`, `56.7` or `0.12`."""
    if value != value:
        return DASH
    digits = 0 if value >= 100 else 1 if value >= 10 or value == 0 else 2
    return f"{value:,.{digits}f}".replace(",", "\u202f")
