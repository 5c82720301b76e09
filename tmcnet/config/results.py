"""Config of what comes out: evaluation, maps, tracking and the report."""

from __future__ import annotations

from pydantic import Field

from tmcnet.config.base import Section


class EvaluateConfig(Section):
    """How the fine-tuned networks are scored on the test part."""

    batch_size: int = Field(16, ge=1, description="Tiles in one forward pass.")
    bootstrap: int = Field(1000, ge=100, description="Bootstrap draws over test blocks for the intervals.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals.")
    calibration_bins: int = Field(15, ge=2, description="Bins of the expected calibration error.")
    seed: int = Field(1, ge=0, description="Seed of the bootstrap.")


class MapsConfig(Section):
    """Which whole scenes are mapped, and how."""

    fractions: list[float] = Field(
        [], description="Label fractions whose runs draw maps; empty: the largest of each network only."
    )
    seeds: list[int] = Field([1], description="Run seeds that draw maps.")
    window: int = Field(256, ge=32, description="Side of an inference window in pixels.")
    overlap: int = Field(64, ge=0, description="Overlap of neighbouring windows in pixels, blended smoothly.")
    batch_size: int = Field(4, ge=1, description="Windows in one forward pass.")
    rotations: bool = Field(False, description="Average over the four right-angle rotations.")
    rgb: bool = Field(False, description="Write `<run>_rgb.tif` as well, for programs that know no colour table.")
    max_tiles: int = Field(
        24, ge=1, description="For sources of ready-made tiles: number of test tiles that are mapped."
    )


class TrackingConfig(Section):
    """Where runs are recorded for MLflow."""

    uri: str | None = Field(
        None,
        description="Tracking server or database. Null: `MLFLOW_TRACKING_URI` where set, else "
        "`mlflow.db` (SQLite) in `results_dir`.",
    )
    experiment: str | None = Field(None, description="Name of the experiment; null: `name`.")


class ReportConfig(Section):
    """What the report shows."""

    title: str = Field("Label-efficient land-cover mapping", description="Heading of the report.")
    metric: str = Field(
        "miou", pattern="^(oa|kappa|miou|mf1)$", description="Metric of the headline figure and verdict."
    )
    examples: int = Field(6, ge=1, le=40, description="Map examples shown.")


class ComputeConfig(Section):
    """What the machine gives."""

    accelerator: str = Field("auto", pattern="^(auto|cpu|gpu)$", description="`auto` takes a GPU where there is one.")
    precision: str = Field(
        "32-true", pattern="^(32-true|bf16-mixed|16-mixed)$", description="Number format of training."
    )
    pretrain_threads: int = Field(2, ge=1, description="CPU threads of a pre-training job.")
    finetune_threads: int = Field(1, ge=1, description="CPU threads of a fine-tuning or mapping job.")
    cache_gib: float = Field(4.0, ge=0, description="Largest memory for tiles kept in RAM, per job, in GiB.")
