"""Config of the data: files, modalities, labels and classes; common grid, tiles and normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel, StringConstraints, field_validator, model_validator

from tmcnet.config.base import REQUIRED, ModalityName, Section

IGNORE = 255
"""Value of void pixels in label rasters, loss and metrics."""

HexColor = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]
Byte = Annotated[int, Field(ge=0, le=255)]
Layout = Literal["demo", "scenes", "tiles", "seed"]
SensorKind = Literal["reflectance", "backscatter", "elevation"]
Scale = Literal["auto", "none", "linear", "amplitude", "db"]
SpeckleFilter = Literal["none", "lee", "refined_lee"]
AlignModel = Literal["shift", "affine", "quadratic", "thin_plate"]

_DEMO_NAMES = (
    *("alder", "birch", "cedar", "dogwood", "elder", "fir", "gorse", "hazel", "iris", "juniper"),
    *("kale", "larch", "maple", "nettle", "oak", "poplar", "quince", "rowan", "spruce", "thorn"),
)


class DemoConfig(Section):
    """Simulated scenes."""

    scenes: int = Field(4, ge=1, le=20)
    """Number of simulated scenes."""
    size: int = Field(768, ge=128)
    """Height and width of a scene in optical pixels (10 m)."""
    seed: int = Field(7, ge=0)
    """Seed of the simulated landscape."""

    @property
    def scene_names(self) -> list[str]:
        """Names of the demo scenes."""
        return list(_DEMO_NAMES[: self.scenes])


class SourceConfig(Section):
    """Files of the imagery and their layout."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]

    layout: Layout = "demo"
    """`demo`: simulated scenes. `scenes`: georeferenced scenes from a sample sheet or patterns. `tiles`: ready-made
    tiles from patterns. `seed`: a folder with `train_RGB/`, `train_SAR/`, `train_lbl/`, list files and
    `class_dict.txt`, as the published code uses."""
    sheet: str | None = None
    """Sample sheet (CSV) of layout `scenes`: columns `scene, optical, sar, label, role`, and one for each other
    modality of `sensors`. Several files in one field are separated by `;` and stacked as bands; each may be a pattern
    with `*`, `?` or `[...]`, whose files form one mosaic (the last by name on top), or a name of GDAL such as
    `NETCDF:f.nc:var`, `/vsizip/f.zip/b.tif` or a `.SAFE` folder. Scenes of role `predict` may lack modalities, but
    not both `optical` and `sar`. The columns `<modality>_nodata`, `<modality>_scale`, `<modality>_scale_factor` and
    `<modality>_add_offset` override `sensors` and the tags of the files for one scene if they are not empty.
    `<modality>_mask` names a quality mask; `<modality>_mask_codes` or `<modality>_mask_bits`, such as `3;8;9`,
    replaces both keys for one scene."""
    optical: str | None = None
    """Pattern of the optical files below `data_root`, such as `optical/{scene}.tif`. `{name}` matches any text
    without a slash, `{name:d}` a whole number with or without leading zeros, `{name:2}` two characters. Each other
    modality of `sensors` has its own key here (`dem: dem/{scene}.tif`)."""
    sar: str | None = None
    """Pattern of the SAR files, with the same fields."""
    label: str | None = None
    """Pattern of the label files, with the same fields."""
    masks: dict[str, str] = {}
    """Patterns of quality masks by modality, with the same fields, such as `{optical: 'scl/{scene}.tif'}`;
    `sensors.<modality>.mask_codes` or `mask_bits` says what means no data in them. A sample sheet names them in the
    columns `<modality>_mask`."""
    exclude: list[str] = []
    """Scenes or tiles to leave out, by name (joined fields of the pattern, such as `area_12`; those of fixed width
    and their neighbours without `_`)."""
    crs: str | None = None
    """CRS of files without one, such as a PNG with a world file; for layout `scenes`. Example: `EPSG:32633`."""
    remote: bool = False
    """Whether files may be read over the network (`https://`, `s3://`, `gs://`, `/vsicurl/`, or a virtual raster with
    such a source). By default they are refused. Credentials are in the environment variables of GDAL. A remote file
    that changed, by its ETag or else its size and time, is read again; for that, `s3://` needs the Python package
    s3fs, and `gs://` gcsfs."""
    demo: DemoConfig = DemoConfig()

    @property
    def patterns(self) -> dict[str, str]:
        """Patterns of the images by modality: `optical`, `sar`, then the others as listed."""
        named = {"optical": self.optical, "sar": self.sar, **self.__pydantic_extra__}
        return {name: pattern for name, pattern in named.items() if pattern}

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_spelling(cls, values: Any) -> Any:  # noqa: ANN401 - the input is checked here
        if isinstance(values, dict) and "further" in values:
            raise ValueError("`further` is no longer a key: write `source: {optical: ..., sar: ..., dem: ...}`")
        return values

    def _problems(self) -> Iterator[str]:
        if self.crs and self.layout != "scenes":
            yield f"`crs` is for layout `scenes`; layout `{self.layout}` needs none"
        if self.layout == "tiles" and not (self.optical and self.sar and self.label):
            yield "layout `tiles` needs the patterns `optical`, `sar` and `label`"
        if self.layout == "scenes" and not self.sheet and not (self.optical and self.sar):
            yield "layout `scenes` needs either a `sheet` or the patterns `optical` and `sar`"
        if unknown := sorted(set(self.masks) - set(self.patterns)):
            yield f"`masks` names {', '.join(unknown)}, of which there is no pattern beside it"
        if self.layout == "scenes" and self.sheet and (self.patterns or self.label):
            yield "give either a `sheet` or patterns, not both; set the other to null"


class SensorConfig(Section):
    """One modality: its bands and the meaning of their values."""

    bands: list[str] = Field(min_length=1)
    """Band names in the order of the file or files. Names of files and descriptions of bands that name these bands in
    another order are an error."""
    kind: SensorKind
    """Measured quantity; determines the photometric augmentation. `reflectance` for `optical` and `backscatter` for
    `sar` if not given."""
    scale: Scale = "none"
    """Scale of backscatter values: `linear` (power), `amplitude`, `db`, `auto`, `none` (unchanged, as for 8-bit
    pictures). `auto` is what descriptions or units in the file say, or its name (`amplitude`, or as HyP3 of ASF names
    its products), else what its values show, and is recorded.
    `linear` and `amplitude` are converted to dB. Complex numbers are read as power. A declared scale that the values
    contradict is an error; `linear` may be as low as -0.1, as subtraction of noise leaves it."""
    scale_factor: float | None = None
    """Factor from the stored numbers to the values (value = number * factor + offset), for files without tags for
    scale and offset. Tags are always applied. The offset that the metadata of a Sentinel-2 product give (-1000 since
    baseline 04.00) is added to the numbers first, unless `add_offset` is given."""
    add_offset: float | None = None
    """Offset beside `scale_factor`, in units of the values."""
    clip_db: tuple[float, float] = (-35.0, 10.0)
    """Range to which backscatter in dB is clipped; has no effect on other scales."""
    speckle: SpeckleFilter = "none"
    """Speckle filter for backscatter, applied in linear power before warping: `lee`, or `refined_lee`, which averages
    along edges and not across them: sharper edges, less smoothing elsewhere."""
    speckle_window: int = Field(7, ge=3, le=31)
    """Side of the speckle filter's window in SAR pixels; odd."""
    looks: float | None = Field(None, gt=0)
    """Number of looks of the speckle. null: estimated from small squares of a scene, or from all ready-made tiles.
    The estimate assumes uncorrelated speckle; for oversampled images it is too high."""
    nodata: float | None = None
    """No-data value, as stored in the file, if the file has none or a wrong one. Masks of the file count in
    addition."""
    mask_codes: list[int] = []
    """Codes that mean no data in the quality mask that `source.masks`, or the column `<modality>_mask` of the sample
    sheet, names, such as `[0, 3, 8, 9, 10]` for no data, clouds and shadows in the SCL of Sentinel-2. Only these
    count: the nodata tag of a mask may mean no data, as 0 in SCL, or clear, as 0 in many cloud masks."""
    # an unused key must not change the parameters of trainings, which would run again
    mask_bits: list[Annotated[int, Field(ge=0, le=31)]] = Field([], exclude_if=lambda bits: not bits)
    """Bits of the quality mask, counted from 0, of which each means no data where it is set; they add to
    `mask_codes`. `[0, 1, 2, 3, 4]`: fill, dilated cloud, cirrus, cloud and shadow in the `QA_PIXEL` of Landsat
    Collection 2 (5 is snow, 6 clear, 7 water). `[1, 2, 3]`: cloud, its surroundings and shadow in the `Fmask` of HLS,
    whose fill has all bits. `[10, 11]`: cloud and cirrus in the old `QA60` of Sentinel-2. The bands of a mask with
    several bands count as bits: `[0, 1]` for cloud and cirrus in `MSK_CLASSI`."""
    display: list[str] = []
    """One or three band names for pictures (red, green, blue); empty: the first band in grey."""

    @property
    def scaling(self) -> tuple[float, float] | None:
        """Scale factor and offset, if any is given."""
        if self.scale_factor is None and self.add_offset is None:
            return None
        return 1.0 if self.scale_factor is None else self.scale_factor, self.add_offset or 0.0

    def _problems(self) -> Iterator[str]:
        if unknown := [band for band in self.display if band not in self.bands]:
            yield f"`display` names unknown bands {unknown}; the bands are {self.bands}"
        if len(self.display) not in (0, 1, 3):
            yield "`display` must name one or three bands"
        if len(set(self.bands)) != len(self.bands):
            yield f"`bands` names a band twice: {self.bands}"
        if not self.clip_db[0] < self.clip_db[1]:
            yield f"`clip_db` ({self.clip_db[0]:g}, {self.clip_db[1]:g}) must be [lower, upper]"
        if self.scale_factor == 0:
            yield "`scale_factor` must not be 0: all values would be equal"
        if self.speckle != "none" and (self.kind != "backscatter" or self.scale == "none"):
            needed = f"`speckle: {self.speckle}` needs `kind: backscatter` and a `scale` other than `none`"
            yield f"{needed}, but these are `{self.kind}` and `{self.scale}`: speckle is filtered in linear power"
        if self.speckle_window % 2 == 0:
            yield f"`speckle_window` ({self.speckle_window}) must be odd"


class SensorsConfig(RootModel[dict[ModalityName, SensorConfig]], Mapping[str, SensorConfig]):
    """The modalities by name: `optical`, `sar`, then the others in the order of the config.

    The optical image defines the grid of a scene; the SAR image, or what stands in for it (a DEM or DSM), is
    registered to it. Other modalities are warped to this grid as delivered and used by all networks.

    Example:
        >>> sensors = SensorsConfig(optical=optical, sar=sar, dem=dem)
        >>> sensors["dem"].bands
        ['elevation']
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _order(cls, values: Any) -> Any:  # noqa: ANN401 - the input is checked here
        if not isinstance(values, Mapping):
            return values
        if "further" in values:
            names = ", ".join(values["further"] or {}) or "dem"
            raise ValueError(
                f"`further` is no longer a key: list {names} beside `optical` and `sar`, as in "
                "`sensors: {optical: ..., sar: ..., dem: ...}`"
            )
        missing = [name for name in REQUIRED if name not in values]
        if missing:
            raise ValueError(f"`{missing[0]}` is missing; every data set has `optical` and `sar`")
        named = {name: values[name] for name in dict.fromkeys([*REQUIRED, *values])}
        for name, kind in (("optical", "reflectance"), ("sar", "backscatter")):
            if isinstance(named[name], Mapping):
                named[name] = {"kind": kind, **named[name]}
        return named

    @model_validator(mode="after")
    def _filter_speckle_of_sar_only(self) -> SensorsConfig:
        for name, sensor in self.items():
            if name != "sar" and sensor.speckle != "none":
                raise ValueError(f"`{name}.speckle` must be `none`: speckle is filtered in `sar` only")
        return self

    def __getitem__(self, name: str) -> SensorConfig:
        return self.root[name]

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # a mapping of names, not pydantic's field pairs
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    @property
    def band_counts(self) -> dict[str, int]:
        """Number of bands of each modality."""
        return {name: len(sensor.bands) for name, sensor in self.items()}

    @property
    def others(self) -> dict[str, SensorConfig]:
        """The modalities beside optical and SAR."""
        return {name: sensor for name, sensor in self.items() if name not in REQUIRED}

    @property
    def reflectance(self) -> list[str]:
        """The modalities whose images clouds cover."""
        return [name for name, sensor in self.items() if sensor.kind == "reflectance"]


class ClassConfig(Section):
    """One land-cover class."""

    name: str = Field(min_length=1, max_length=100)
    """Name of the class in tables, maps and the report. It does not begin with `=`, `@`, `+` or `-`, which
    spreadsheet programs take for formulas."""
    codes: list[int] = []
    """Codes in the label files that mean this class."""
    rgb: tuple[Byte, Byte, Byte] | None = None
    """Colour in RGB-coded label files."""
    color: HexColor
    """Colour in maps and figures, as `#rrggbb`."""

    @field_validator("color", mode="before")
    @classmethod
    def _color_is_given(cls, color: object) -> object:
        if color is None:
            raise ValueError("is empty: YAML takes what follows `#` for a comment; put the colour in quotes")
        return color

    @field_validator("name")
    @classmethod
    def _name_is_plain_text(cls, name: str) -> str:
        if name[:1] in "=@+-" or not name.isprintable():
            raise ValueError("must be printable text that does not begin with `=`, `@`, `+` or `-`")
        return name


class LabelsConfig(Section):
    """Codes of the label files, and the classes."""

    encoding: Literal["ids", "rgb"] = "ids"
    """`ids`: one band of codes. `rgb`: three bands of class colours."""
    band: int | None = Field(None, ge=1)
    """Band of the codes, from 1, in label files with several bands of codes; null: one band."""
    void: list[int] = []
    """Codes that mean `no label`. A code neither here nor in a class is an error."""
    void_rgb: list[tuple[Byte, Byte, Byte]] = []
    """Colours that mean `no label`."""
    attribute: str = Field("class", min_length=1)
    """Attribute of vector labels (GeoPackage, GeoJSON, Shapefile, FlatGeobuf) that gives the class of a feature, as
    one of its codes or as its name in any capitals. Pixels whose centre is in no feature are void; where features
    overlap, the last one counts."""
    buffer: float = Field(0.0, ge=0)
    """Points and lines of vector labels count up to this distance in metres; 0: they are an error."""
    classes: list[ClassConfig] = []
    """The classes in the order of their ids. Layout `seed` takes them from `class_dict.txt` if none are given
    here."""

    @property
    def coding(self) -> dict[str, Any]:
        """What the label files mean: all but the names and colours of the classes."""
        return self.model_dump(mode="json", exclude={"classes": {"__all__": {"name", "color"}}})

    def _problems(self) -> Iterator[str]:
        names, ids = [c.name for c in self.classes], self.encoding == "ids"
        if doubles := sorted({n for n in names if names.count(n) > 1}):
            yield f"class names must be unique: {doubles}"
        codes = [code for c in self.classes for code in c.codes] + self.void
        if ids and (doubled := sorted({code for code in codes if codes.count(code) > 1})):
            yield f"label codes {doubled} are given to more than one class or to void as well"
        if large := [code for code in codes if not -(2**63) <= code < 2**63]:
            yield f"label codes must be below 2^63: {large}"
        if ids and any(not c.codes for c in self.classes):
            yield "every class needs at least one code in `codes`"
        if not ids and any(c.rgb is None for c in self.classes):
            yield "every class needs its colour in `rgb` when `encoding` is `rgb`"
        if len(self.classes) == 1:
            yield "a map needs at least two classes"
        if len(self.classes) >= IGNORE:
            yield f"at most {IGNORE - 1} classes fit beside the ignore value {IGNORE}"


class AlignConfig(Section):
    """Co-registration of the SAR image to the optical image."""

    enabled: bool = True
    """Match the images. When false, the georeference is used as delivered."""
    resolution: float | None = Field(None, gt=0)
    """Pixel size of the common grid in units of the scene's CRS; null: that of the optical image, of several files
    the finest."""
    max_shift: int = Field(60, ge=2, le=200)
    """Search radius: largest shift at the centre of a scene, in pixels of the common grid. Rotations up to 2 degrees
    and scale errors up to 3 % are always searched."""
    models: list[AlignModel] = Field(["shift", "affine", "quadratic", "thin_plate"], min_length=1)
    """Allowed models of the displacement. The one with the lowest held-out RMSE at tie points is used, or none if no
    model clearly lowers it."""


class TilesConfig(Section):
    """How scenes are cut into tiles."""

    size: int = Field(128, ge=32)
    """Height and width of a tile in pixels."""
    stride: int = Field(128, ge=8)
    """Step between tiles in pixels; tiles overlap where it is smaller than `size`."""
    edge: Literal["pad", "shift", "drop"] = "shift"
    """What to do at the far edges: `pad` with no data, `shift` the last tile inwards so that it overlaps its
    neighbour, or `drop` it."""
    min_valid: float = Field(0.5, ge=0, le=1)
    """Minimum share of pixels that are valid in all modalities; other tiles are dropped."""
    store: Literal["auto", "files", "virtual"] = "auto"
    """`files`: write each tile as one GeoTIFF per modality and one for the label. `virtual`: write only the index and
    read tiles as windows of the aligned scenes, which saves a copy of all pixels; not for ready-made tiles. `auto`:
    `virtual` for scenes that are cut while all scenes together have more than 100,000 tiles, because file systems are
    slow with many small files; otherwise `files`. Both give the same results."""

    def _problems(self) -> Iterator[str]:
        if self.stride > self.size:
            yield f"`stride` ({self.stride}) must not exceed `size` ({self.size}), else strips are lost"


class NormaliseConfig(Section):
    """How band values are brought to a common range: robust statistics of the training tiles."""

    low: float = Field(2.0, ge=0, lt=50)
    """Lower percentile of a band, mapped to -1."""
    high: float = Field(98.0, gt=50, le=100)
    """Upper percentile of a band, mapped to +1."""
    clip: float = Field(1.5, ge=1, le=3)
    """Values are clipped to plus and minus this much after scaling. Photometric augmentation and drawn clouds stay in
    this range, and are stronger where it is wider."""
