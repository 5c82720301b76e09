"""Config of the networks and of fine-tuning, and the runs of its sweep with their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from tmcnet.config.base import AND, ONLY, Section, only_modality
from tmcnet.registry import NETWORKS

Variant = Literal["reference", "corrected"]
CONTEXT_STEP_PX = 4
"""Distance of the pixels at which statistics of large windows are computed."""
SINGLE_SENSOR = (f"optical{ONLY}", f"sar{ONLY}")
"""Networks that use only optical or only SAR."""


def is_classifier(network: str) -> bool:
    """Whether it classifies single pixels by features that are not trained."""
    return network in NETWORKS and NETWORKS[network].features is not None


def is_pixelwise(network: str) -> bool:
    """Whether it is a classifier without an encoder, which has the random start only."""
    return network in NETWORKS and NETWORKS[network].features == "context"


def has_variants(network: str) -> bool:
    """Whether a network, or a member of an ensemble, has a published form beside the corrected one."""
    return any(name in NETWORKS and NETWORKS[name].reference for name in members_of(network) or [network])


def members_of(network: str) -> list[str]:
    """Names of the networks that an ensemble averages; empty for other networks."""
    return network.split(AND) if AND in network else []


def has_start(network: str, method: str = "") -> bool:
    """Whether a network, or a member of an ensemble, has the start `method` or one from weights.

    Pixel-wise classifiers take self-training, but no weights: their start is random otherwise.
    """
    return bool(self_training_round(method)) or not all(map(is_pixelwise, members_of(network) or [network]))


def self_training_round(method: str) -> int:
    """Round of self-training that a start is, from 1; 0: it is another start."""
    return SELF_TRAINING.index(method) + 1 if method in SELF_TRAINING else 0


def _ensemble_name(value: object) -> object:
    """Name of `{ensemble: [a, b]}`, `a_and_b`; other values are returned as they are."""
    if not isinstance(value, dict):
        return value
    members = value.get("ensemble")
    if list(value) != ["ensemble"] or not isinstance(members, list) or not all(isinstance(m, str) for m in members):
        raise ValueError("a network is a name or `{ensemble: [names]}`")
    if len(members) < 2:
        raise ValueError(f"an ensemble needs at least two different networks, not {members}")
    return AND.join(members)


def _is_network(name: str) -> str:
    if members := members_of(name):
        if len(set(members)) < len(members):
            raise ValueError(f"an ensemble needs at least two different networks, not {members}")
        for member in members:
            _is_network(member)
        return name
    if only_modality(name) or name in NETWORKS:
        return name
    known = ", ".join(NETWORKS)
    raise ValueError(f"there is no network `{name}`; there are {known}, and `<name>{ONLY}` for each other modality")


_ENSEMBLE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"ensemble": {"items": {"type": "string"}}},
}
NetworkName = Annotated[
    str,
    BeforeValidator(_ensemble_name),
    AfterValidator(_is_network),
    WithJsonSchema(
        {"anyOf": [{"enum": list(NETWORKS)}, {"type": "string", "pattern": f"({ONLY}|{AND}.+)$"}, _ENSEMBLE]}
    ),
]
LoadParts = Literal["backbone", "encoder", "all"]
Loss = Literal["cross_entropy", "focal", "dice", "cross_entropy_dice"]
Cover = Literal["clouds", "no_data"]
Dilation = Annotated[int, Field(ge=1)]
RANDOM_START = "random"
"""Reserved name of the start without pre-trained weights."""
SELF_TRAINING = ("self-training", "self-training-2")
"""Reserved names of the starts from labels of a teacher, by round."""


class ContextConfig(Section):
    """Context features of each pixel: input of the pixel-wise classifiers and of the full-resolution branch."""

    windows: list[Annotated[int, Field(ge=3, le=511)]] = [3, 7, 15, 31, 63]
    """Sides in pixels of the square windows over which mean and standard deviation of each band are features; odd, so
    that a pixel is in the middle."""
    differences: bool = True
    """Differences of each pair of bands; n bands have n (n - 1) / 2. `false` for many bands."""
    relative_window: int | None = Field(255, ge=3, le=511)
    """Side in pixels of the window to whose mean and deviation each band is also given relatively, which removes
    differences in brightness between images; odd. null: no relative bands. A map sees the largest window whole only
    if `maps.overlap` covers it; a smaller overlap is raised."""

    def _problems(self) -> Iterator[str]:
        if even := [side for side in (*self.windows, self.relative_window or 3) if side % 2 == 0]:
            yield f"windows need odd sides, so that a pixel is in the middle; {even} are even"
        if len(set(self.windows)) < len(self.windows):
            yield f"`windows` {self.windows} has a side twice"

    @property
    def reach(self) -> int:
        """Distance in pixels to the farthest pixel that influences a feature."""
        # Statistics of large windows are interpolated between every fourth pixel.
        return max([1, *self.windows, self.relative_window or 1]) // 2 + CONTEXT_STEP_PX - 1


def deep_context_px(dilation: int) -> int:
    """Distance in pixels from which encoder, pyramid and decoder hardly see the edge of an image.

    That of the taps of the pyramid, whose dilation counts pixels of 16, and 36 more.
    """
    return 36 + 16 * dilation


class ModelConfig(Section):
    """Sizes of the networks, shared by pre-training and fine-tuning."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    """Encoder of each modality; published: `resnet50`."""
    width: int = Field(64, ge=8)
    """Channels of the first stage; published: 64."""
    dilations: tuple[Dilation, Dilation, Dilation] = (6, 12, 18)
    """Dilations of the pyramid, in pixels of the deepest map (1/16 of the image). If a dilation exceeds `crop_size` /
    16, its outer taps see only padding in training but act on larger images: small crops need small dilations."""
    aspp_channels: int = Field(256, ge=16)
    """Channels of atrous spatial pyramid pooling."""
    decoder_channels: int = Field(256, ge=16)
    """Channels of the decoder."""
    detail_channels: int = Field(64, ge=0)
    """Channels of the two layers on the context features of each pixel, the full-resolution branch of all
    segmentation networks except `reference`. 0: no branch, and objects narrower than four pixels are lost."""
    context: ContextConfig = ContextConfig()
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout of the encoder's output; short trainings need less. The `reference` variants always have the published
    0.5."""


class SweepConfig(Section):
    """One part of the sweep: every combination of its values is a run."""

    methods: list[str] = Field([RANDOM_START], min_length=1)
    """Starts: `random`, names of `pretrain.methods` or `pretrain.weights`; `self-training`, which learns from a
    teacher's labels of unlabelled tiles, too (`finetune.self_training`), and `self-training-2`, whose teacher is the
    network that `self-training` made."""
    networks: list[NetworkName] = Field(["mssnet"], min_length=1)
    """Segmentation networks: `mssnet`, `early_fusion` and `late_fusion` of all modalities; `<name>_only` of one
    modality of `sensors`, such as `optical_only`; the classifiers of single pixels `pixel_logistic`, `pixel_boosting`
    and `pixel_mlp` (a multilayer perceptron); `encoder_logistic`, `encoder_boosting` and `encoder_mlp`, the same with
    features of the frozen encoder of each start beside the context features; `{ensemble: [pixel_boosting, mssnet]}`:
    the mean of the calibrated probabilities of several of them, each trained once."""
    variants: list[Variant] = Field(["corrected"], min_length=1)
    """Variants of `mssnet`; other networks have one."""
    fractions: list[float] = []
    """Label fractions in percent, from `splits.fractions`."""
    points: list[int] = []
    """Numbers of labelled pixels per class, from `splits.points`: sparse annotation."""
    subsets: list[int] | None = Field(None, min_length=1)
    """Draws of the labels, counted from 1; each runs with every seed. null: run seed k uses the k-th draw, which
    covers both with the fewest runs."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field([1, 2, 3], min_length=1)
    """Run seeds: initial weights, order of samples, augmentation."""
    maps: bool = True
    """Whether its runs map whole scenes; section `maps` says which of them."""

    def _problems(self) -> Iterator[str]:
        if not self.fractions and not self.points:
            yield "give label `fractions`, `points`, or both"


class PixelwiseConfig(Section):
    """Fit of classifiers of single pixels: `pixel_logistic`, `pixel_boosting`, `pixel_mlp`, a branch of networks."""

    pixels: int = Field(50_000, ge=100)
    """Maximum number of labelled pixels to fit on, drawn evenly over the classes."""
    steps: int = Field(2500, ge=1)
    """Optimiser steps, of 2048 pixels each, of `pixel_mlp` and of the full-resolution branch of networks
    (`model.detail_channels`), which is fitted before the network is trained."""
    iterations: int = Field(100, ge=1)
    """Maximum number of boosting rounds, each with one tree per class."""
    learning_rate: float = Field(0.1, gt=0)
    """Shrinkage of each boosting round."""


class FinetuneSettings(Section):
    """Fine-tuning of one network on one label fraction."""

    load: LoadParts = "all"
    """Weights used from pre-training: `backbone`, `encoder` (backbone and ASPP) or `all` (also the decoder, if it
    fits)."""
    steps: int = Field(200, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(8, ge=2)
    """Tiles per step."""
    crop_size: int = Field(96, ge=32)
    """Side of the training crop in pixels. The full-resolution branch sees the tile around it."""
    learning_rate: float = Field(1e-3, gt=0)
    """Maximum learning rate."""
    encoder_rate: float = Field(1.0, ge=0)
    """Learning rate of pre-trained encoders as a multiple of `learning_rate`; encoders with random weights always
    have the full rate. Below 1, fine-tuning changes the pre-trained weights less; at 0 it keeps them (the running
    statistics of batch norm still follow the data)."""
    weight_decay: float = Field(1e-2, ge=0)
    """Weight decay."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warm-up of the learning rate."""
    loss: Loss = "cross_entropy"
    """`cross_entropy`; `focal`, with less weight for pixels that are already correct (Lin et al. 2017); `dice`, the
    overlap of each class (Milletari et al. 2016); `cross_entropy_dice`, their sum."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated and kept. null: no
    average."""
    class_weights: bool = True
    """Weight classes by the inverse square root of their frequency in the label fraction; `dice` takes no weights."""
    photometric: float = Field(0.25, ge=0, le=2)
    """Strength of the photometric augmentation; 1 as in pre-training, but for the rotation of hues."""
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that one modality of a training sample is removed."""
    cutmix: float = Field(0.0, ge=0, le=1)
    """Probability that a rectangle of another tile, with its label, is pasted over a training crop of a network
    (CutMix; Yun et al., ICCV 2019)."""
    covered_copies: list[Cover] = []
    """Copies of each labelled tile whose reflectance images are partly covered, so that networks and classifiers of
    several modalities learn what the others show under clouds: `clouds` draws clouds, for scenes without cloud masks;
    `no_data` removes data, for scenes with masks. `[clouds, no_data]` makes two copies. With few labels this decides
    whether SAR helps under clouds; it costs a little accuracy where all images are clear."""
    validate_every: int = Field(50, ge=1)
    """Steps between two validations."""
    keep: Literal["labels", "best", "last"] = "labels"
    """Labels that decide what is kept. `labels`: below 100 % of the labels none beyond those of the run. Networks
    keep the last step, boosting all rounds, ensembles need no temperatures, and pixel-wise classifiers of fewer than
    12 tiles use the context windows up to 15 pixels only; with all labels as `best`. `best`: the step of a network
    and the boosting round with the best mIoU on the validation part, where the temperatures of ensembles are fitted
    too. `last`: as `labels` for every budget, with all windows. The validation part is always scored."""
    pixelwise: PixelwiseConfig = PixelwiseConfig()
    seed: int = Field(1, ge=0)
    """Added to every run seed."""

    def for_budget(self, budget: Budget) -> Self:
        """The settings of a run: `keep: labels` is `best` with all labels, to which the validation part belongs."""
        return self.model_copy(update={"keep": "best"}) if self.keep == "labels" and budget.is_all else self


class SelfTrainingConfig(Section):
    """Self-training: a teacher labels unlabelled tiles of the training part, from which a student learns, too.

    The teacher has the labels, draw and seed of its student. It sees the tiles as they are; the student sees crops
    that are changed and covered as in any fine-tuning.
    """

    teacher: NetworkName = AND.join(("pixel_boosting", "pixel_mlp"))
    """Network that labels the tiles in the first round, best the one with the best scores so far. In the second, each
    network learns from the labels of its own first round."""
    start: str = RANDOM_START
    """Start of the teacher, and of the weights of its students."""
    confident: float = Field(1.0, gt=0, le=1)
    """Share of the pixels of each class, the most confident ones, whose labels are used; the others are void."""
    tiles: int = Field(4, ge=1)
    """Maximum number of unlabelled tiles for each labelled one, drawn at random."""

    def _problems(self) -> Iterator[str]:
        if self_training_round(self.start):
            yield f"`start` is {self.start}, which has a teacher itself; use `{RANDOM_START}` or a name of `pretrain`"


class FinetuneConfig(FinetuneSettings):
    """Supervised fine-tuning of fusion networks on label fractions."""

    self_training: SelfTrainingConfig = SelfTrainingConfig()
    sweep: list[SweepConfig] = []
    """Runs to train; duplicates run once."""

    def start_of(self, run: Run) -> str:
        """Start of the weights of a run: `random`, or a name of `pretrain`."""
        if not self_training_round(run.method):
            return run.method
        return self.self_training.start if has_start(run.network) else RANDOM_START

    def teacher_of(self, run: Run) -> Run | None:
        """The run that labels tiles for a run with self-training; None for others, and for means of students."""
        number = self_training_round(run.method)
        if number == 0 or run.members:
            return None
        if number > 1:
            return replace(run, method=SELF_TRAINING[number - 2])
        return run.with_network(self.self_training.teacher, self.self_training.start)

    def with_needed(self, runs: Iterable[Run]) -> list[Run]:
        """Runs, and those that they need: members of ensembles and teachers; each once."""
        wanted = list(runs)
        return list(dict.fromkeys([*wanted, *(other for run in wanted for other in self._needed_by(run))]))

    def _needed_by(self, run: Run) -> Iterator[Run]:
        for other in [*run.members, *filter(None, [self.teacher_of(run)])]:
            yield other
            yield from self._needed_by(other)


BASELINE = "baseline"
"""Variant of networks without a published form."""

_BUDGET = r"(?P<kind>[PR])(?P<amount>[0-9]+(?:\.[0-9]+)?)"
_DRAWN = rf"{_BUDGET}(?:_s(?P<draw>[0-9]+))?"
_PATTERN = re.compile(
    rf"^(?P<network>[a-z0-9_]+?)-(?P<variant>[a-z]+)__(?P<method>[\w-]+?)__{_DRAWN}__s(?P<seed>[0-9]+)$"
)


@dataclass(frozen=True, order=True)
class Budget:
    """Number of labels that a run learns from; budgets of points sort before fractions of tiles.

    Attributes:
        kind: `P`: labelled pixels of each class; `R`: percent of the labelled training tiles.
        amount: Number of pixels, or percent.
    """

    kind: Literal["P", "R"]
    amount: float

    @property
    def name(self) -> str:
        """Name in lists and paths: `P10`, `R5`, `R0.5`."""
        return f"{self.kind}{self.amount:g}" if self.kind == "R" else f"P{self.points}"

    @property
    def fraction(self) -> float | None:
        """Percent of the training tiles; None for points."""
        return self.amount if self.kind == "R" else None

    @property
    def points(self) -> int | None:
        """Labelled pixels of each class; None for tiles."""
        return int(self.amount) if self.kind == "P" else None

    @property
    def is_all(self) -> bool:
        """Whether the budget is all labels, so that only one draw exists."""
        return self.kind == "R" and self.amount == 100

    def subset(self, draw: int) -> str:
        """Name of the label list of one draw, counted from 1: `trainR5`, `trainR5_s2`, `trainP10`."""
        return f"train{self.name}" + ("" if draw == 1 else f"_s{draw}")

    @classmethod
    def parse(cls, name: str) -> Budget:
        """Parse a name.

        Raises:
            ValueError: If `name` is not the name of a budget.
        """
        match = re.fullmatch(_BUDGET, name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a label budget, such as R5 or P10")
        return cls.of(match)

    @classmethod
    def parse_subset(cls, name: str) -> tuple[Budget, int] | None:
        """Parse the name of a label list into budget and draw; None for other lists, such as `train`."""
        match = re.fullmatch(f"train{_DRAWN}", name)
        return match and (cls.of(match), int(match["draw"] or 1))

    @classmethod
    def of(cls, match: re.Match[str]) -> Budget:
        """The budget in a match of `kind` and `amount`."""
        return cls("P" if match["kind"] == "P" else "R", float(match["amount"]))


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuned network: one row of `metrics.csv`.

    Attributes:
        network: Segmentation network.
        variant: Variant of the network.
        method: Start: `random`, a pre-training method or named weights.
        budget: Number of labels it learns from.
        draw: Draw of these labels, counted from 1.
        seed: Seed of initial weights, order of the samples and augmentation.
    """

    network: str
    variant: str
    method: str
    budget: Budget
    draw: int
    seed: int

    @property
    def name(self) -> str:
        """Name in paths and figures: `mssnet-corrected__tmcnet__R5_s2__s1` is draw 2 of 5 %, run seed 1."""
        labels = self.subset.removeprefix("train")
        return f"{self.network}-{self.variant}__{self.method}__{labels}__s{self.seed}"

    @property
    def subset(self) -> str:
        """Name of the label list it learns from, such as `trainR5_s2`."""
        return self.budget.subset(self.draw)

    @property
    def members(self) -> list[Run]:
        """The runs that an ensemble averages, on the same labels; empty for other networks."""
        return [self.with_network(member, self.method) for member in members_of(self.network)]

    def with_network(self, network: str, method: str) -> Run:
        """The run of another network on the same labels, with this start if the network has it."""
        variant = (self.variant if self.variant != BASELINE else "corrected") if has_variants(network) else BASELINE
        return replace(
            self, network=network, variant=variant, method=method if has_start(network, method) else RANDOM_START
        )

    @property
    def takes_steps(self) -> bool:
        """Whether it is trained step by step; ensembles and pixel-wise classifiers are not."""
        return not (self.members or is_classifier(self.network))

    @property
    def record(self) -> dict[str, Any]:
        """The run as plain values for headers, summaries and tables."""
        return {
            "name": self.name,
            "method": self.method,
            "network": self.network,
            "variant": self.variant,
            "fraction": self.budget.fraction,
            "points": self.budget.points,
            "draw": self.draw,
            "seed": self.seed,
        }

    @classmethod
    def parse(cls, name: str) -> Run:
        """Parse a name.

        Raises:
            ValueError: If `name` is not the name of a run.
        """
        match = _PATTERN.match(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a run, such as mssnet-corrected__tmcnet__R5__s1")
        labels = Budget.of(match), int(match["draw"] or 1)
        return cls(match["network"], match["variant"], match["method"], *labels, int(match["seed"]))


def expand_sweep(sweep: list[SweepConfig]) -> list[Run]:
    """List all runs of a sweep without duplicates, in a fixed order.

    Only `mssnet`, and ensembles with it, have variants. Pixel-wise baselines load no weights: a start from weights is
    the random one for them. A budget of all labels has one draw.
    """
    runs: set[Run] = set()
    for part in sweep:
        budgets = [
            *(Budget("P", points) for points in part.points),
            *(Budget("R", share) for share in part.fractions),
        ]
        repeated = [(draw, seed) for seed in part.seeds for draw in (part.subsets or [seed])]
        for network in part.networks:
            variants = part.variants if has_variants(network) else [BASELINE]
            methods = {method if has_start(network, method) else RANDOM_START for method in part.methods}
            runs.update(
                Run(network, variant, method, budget, 1 if budget.is_all else draw, seed)
                for variant in variants
                for method in methods
                for budget in budgets
                for draw, seed in repeated
            )
    return sorted(runs)
