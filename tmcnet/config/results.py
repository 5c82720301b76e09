"""Config of evaluation, maps, tracking, report and compute."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints, field_validator

from tmcnet.config.base import ModalityName, Section
from tmcnet.errors import hide_secrets

TestTime = Literal["none", "flips", "rotations", "all"]
LOADER_GIB = 0.5
"""Memory of a process that reads tiles for a training, without cached tiles: mostly the libraries."""
UNUSED_OVERLAP_SHARE = 0.4375
"""Share of an overlap that is discarded at each of its ends, where predictions see little context."""
MAP_ENDINGS = ("_confidence", "_rgb", "_areas")
"""Suffixes of the other files of a map."""


class TileGroup(Section):
    """Test tiles of which more than a share is covered by clouds or has no data."""

    modality: ModalityName
    """Image that is looked at."""
    above: dict[str, float] = {}
    """Bands and values, in the units of the aligned scenes: a pixel above all of them is covered. Empty: only pixels
    without data are, as those under a cloud mask."""
    share: float = Field(0.05, ge=0, lt=1)
    """A tile belongs to the group if more than this share of its pixels is covered."""


GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=30)]


class EvaluateConfig(Section):
    """Scores of the fine-tuned networks on the test part."""

    batch_size: int = Field(16, ge=1)
    """Tiles per forward pass."""
    bootstrap: int = Field(1000, ge=100)
    """Bootstrap draws for the intervals."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the intervals."""
    boundary_tolerance: int = Field(2, ge=0)
    """Maximum distance in pixels between matching boundaries (boundary F1)."""
    withheld: bool | None = None
    """Score networks of several modalities also with each modality hidden, as under cloud; each takes one more pass.
    null: if `finetune.modality_dropout` teaches them to do without."""
    groups: dict[GroupName, TileGroup] = {}
    """Groups of test tiles that are scored apart, as are all others, by name: `{cloudy: {modality: optical, above:
    {green: 110, nir: 110}, share: 0.05}}`."""
    seed: int = Field(1, ge=0)
    """Seed of the bootstrap."""


class Windows(NamedTuple):
    """How a scene is divided; both in pixels.

    Attributes:
        size: Side of a window.
        overlap: Overlap of neighbours.
    """

    size: int
    overlap: int


class MapsConfig(Section):
    """Whole-scene maps."""

    fractions: list[float] = []
    """Label fractions whose runs are mapped; empty: only the largest of each network."""
    seeds: list[Annotated[int, Field(ge=0)]] = [1]
    """Run seeds that are mapped."""
    window: int = Field(1024, ge=32, multiple_of=16)
    """Side of an inference window in pixels; a multiple of 16, the largest output stride."""
    overlap: int | None = Field(None, ge=0, multiple_of=16)
    """Overlap of neighbouring windows in pixels; a multiple of 16. Most of it is only context, because networks are
    uncertain near the edge of a window; windows are blended in its middle. null: what the network needs for maps
    without seams (192 to 752, from `model.dilations` and `model.context`). A smaller overlap is raised to what the
    windows of `model.context` need, and `window` to twice that."""
    batch_size: int = Field(1, ge=1)
    """Windows per forward pass; more for GPUs and small windows."""
    test_time: TestTime = "none"
    """Average over copies of each window: the image and its mirror images (`flips`, 4 copies), its rotations by right
    angles (`rotations`, 4), or both (`all`, 8)."""
    strip_megapixels: float = Field(500, gt=0)
    """Larger scenes, by the size of their first image, are mapped by several jobs, each a strip of about this size.
    The map is the same, byte for byte. Remote files are mapped in one job."""
    rgb: bool = False
    """Also write `<run>_rgb.tif`, for programs that ignore colour tables."""
    models: dict[str, str] = {}
    """Networks from earlier runs by name: files `models/<run>/model.safetensors`, or weights of fine-tuning, with the
    same bands and classes. They are mapped in addition to the runs of the sweep."""
    polygons: bool = False
    """Also write `<run>.gpkg`: the map as polygons."""
    minimum_mapping_unit: float = Field(0, ge=0)
    """Polygons: merge patches below this area, in square metres (pixels if a scene has no CRS), into their largest
    neighbour. The raster map keeps them."""
    max_tiles: int = Field(24, ge=1)
    """Maximum number of test tiles to map if the source is ready-made tiles."""

    def fit(self, reach: int, context: int) -> Windows:
        """Return window and overlap for maps without seams.

        An overlap of null becomes what the network needs. A given one is raised to the reach of the context features,
        and the window to twice the overlap.

        Args:
            reach: That of the context features, in pixels; 0 without them.
            context: Distance in pixels beyond which the edge of an image hardly matters to the network.
        """
        needed = max(reach, context) if self.overlap is None else reach
        overlap = max(self.overlap or 0, math.ceil(needed / UNUSED_OVERLAP_SHARE / 16) * 16)
        return Windows(max(self.window, 2 * overlap), overlap)

    def _problems(self) -> Iterator[str]:
        if bad := [name for name in self.models if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII)]:
            allowed = "letters, digits, `_`, `-` and `.`, and must begin with a letter or digit"
            yield f"names in `models` may contain {allowed}, not {bad}"


class TrackingConfig(Section):
    """Recording of runs in MLflow."""

    uri: str | None = None
    """Tracking server or database. Null: the environment variable `MLFLOW_TRACKING_URI`, or else `mlflow.db` (SQLite)
    in `results_dir`. Without user name and password, which belong into the environment variables
    `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`."""
    weights: bool = True
    """Record a copy of the weights of every network. Fine-tuned networks become MLflow models with signature and
    input example, which `mlflow.pyfunc.load_model` opens. `false` saves disk space."""
    register_as: str | None = Field(None, pattern=r"^[\w][\w .-]*$")
    """Name in MLflow's model registry for the network with the best validation score (`report.metric`); it gets the
    alias `best`. Needs `weights`. Null: register none."""

    @field_validator("uri")
    @classmethod
    def _uri_has_no_secret(cls, uri: str | None) -> str | None:
        if uri is not None and hide_secrets(uri) != uri:
            raise ValueError(
                "holds a user name or password, which would be recorded; set the environment variables "
                "`MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or for a database the whole address as "
                "`MLFLOW_TRACKING_URI`"
            )
        return uri

    def _problems(self) -> Iterator[str]:
        if self.register_as is not None and not self.weights:
            yield "`register_as` needs `weights: true`: only recorded networks can be registered"


class ReportConfig(Section):
    """What the report shows."""

    title: str = "Label-efficient land-cover mapping"
    """Heading of the report."""
    metric: str = Field("miou", pattern="^(oa|kappa|miou|mf1)$")
    """Metric of the headline figure and the verdict."""


class ComputeConfig(Section):
    """Threads, memory, accelerator and precision of the jobs."""

    accelerator: str = Field("auto", pattern="^(auto|cpu|gpu)$")
    """`auto` uses a GPU if there is one. On a cluster, jobs ask for one if Snakemake is given a limit for all of them
    (`--resources gpu=8`, or `resources` in the profile)."""
    precision: str = Field("auto", pattern="^(auto|32-true|bf16-mixed|16-mixed)$")
    """Number format of training. `auto`: `bf16-mixed` on a CPU with instructions for it (AMX, AVX512-BF16) if a
    check of less than a second finds convolutions faster, otherwise `32-true`. A training that resumes keeps its
    format; `summary.json` records it. Weights, losses, scores and maps are always float32."""
    nodes: int = Field(1, ge=1)
    """Nodes of a Slurm cluster that share a pre-training. With more than one, the job starts its processes by
    `srun`."""
    devices: int = Field(1, ge=1)
    """Processes on each node that share a pre-training, each with one GPU or `pretrain_threads` CPU threads. The
    result equals one process with the whole batch: negatives and batch norm span all processes. `pretrain.batch_size`
    must be a multiple of `nodes` times `devices`. One process needs no launcher and starts fastest."""
    finetune_shared: bool = False
    """Let `nodes` and `devices` share each fine-tuning of a network as well, each process with one GPU or
    `finetune_threads` CPU threads; `finetune.batch_size` must be a multiple of their number, too. Several runs use
    devices better side by side, which is the default."""
    pretrain_threads: int = Field(2, ge=1, le=1024)
    """CPU threads of each process of a pre-training job."""
    finetune_threads: int = Field(1, ge=1, le=1024)
    """CPU threads of a fine-tuning or mapping job (process)."""
    raster_threads: int = Field(2, ge=1, le=1024)
    """CPU threads of a job that inspects, aligns or tiles a scene (or ready-made tiles)."""
    cache_gib: float = Field(4.0, ge=0)
    """Maximum memory for tiles cached in RAM, in GiB per job."""
    job_gib: float = Field(2.0, gt=0)
    """Memory of a training, scoring or mapping job (per device) without cached tiles, in GiB. Snakemake's `mem_mb` is
    the sum of both, of 0.5 GiB for each process that reads tiles for a GPU (one a thread), and of 0.5 GB for
    Snakemake itself; the second attempt of a failed job gets twice as much. Training the default network takes 1.2
    GiB, the published one (`resnet50`) 6.1 GiB."""

    @property
    def processes(self) -> int:
        """Processes that share a training."""
        return self.nodes * self.devices

    def numerics(self) -> dict[str, str]:
        """The settings that change results: `accelerator` and `precision`, but not threads and memory."""
        return self.model_dump(mode="json", include={"accelerator", "precision"})

    def memory_mb(self, cached: bool, processes: int = 1, loaders: int = 0) -> int:
        """Memory to request from Snakemake for one job, in MB (10^6 bytes).

        Args:
            cached: Whether the job caches tiles in RAM.
            processes: Processes of the job; they share the cache.
            loaders: Further processes that read tiles, of all `processes` together; they share the cache, too.
        """
        gib = self.job_gib * processes + self.cache_gib * cached + LOADER_GIB * loaders
        return round(gib * 2**30 / 1e6)
