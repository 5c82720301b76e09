"""The ground of a scene: fields, water, woods, villages and roads, as one surface per pixel with terrain.

Reflectances and backscatter of the surfaces are typical mid-latitude summer values from textbooks and spectral
libraries. Several surfaces look alike to one of the sensors and different to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.draw import polygon
from skimage.graph import route_through_array

from tmcnet.simulate.noise import FloatMap, Mask, Points, densify, distance_to, fractal, smooth_noise, standardise

WATER, FOREST, CROPLAND, GRASSLAND, ROAD, BUILDING = range(1, 7)
"""Label codes of the demo; 0 is void."""
CROPS = ("ripe_grain", "maize", "green_crop", "bare_soil", "stubble")
BLOCK_PX = 72.0
"""Mean distance of the centres of field blocks."""
ROUTE_STEP_PX = 4
"""Pixel size, in full pixels, of the cost map on which roads are routed."""


@dataclass(frozen=True)
class Surface:
    """One type of surface.

    Attributes:
        code: Label code of its class.
        reflectance: Surface reflectance in percent: blue, green, red, near infrared.
        backscatter: Mean sigma nought in dB: VV, VH.
        spread: Relative standard deviation of the brightness between parcels.
        texture: Relative standard deviation of the brightness within a parcel.
        height: Height above ground in metres.
    """

    code: int
    reflectance: tuple[float, float, float, float]
    backscatter: tuple[float, float]
    spread: float
    texture: float
    height: float = 0.0


SURFACES: dict[str, Surface] = {
    "clear_water": Surface(WATER, (4.4, 3.9, 2.2, 1.4), (-19.5, -27.0), 0.05, 0.05),
    "turbid_water": Surface(WATER, (5.2, 6.6, 5.0, 3.2), (-18.5, -26.0), 0.10, 0.06),
    "algal_water": Surface(WATER, (2.9, 4.4, 2.9, 12.0), (-18.0, -25.5), 0.12, 0.16),
    "conifers": Surface(FOREST, (2.3, 3.3, 2.2, 15.5), (-9.6, -15.0), 0.10, 0.16, 20.0),
    "broadleaf": Surface(FOREST, (2.6, 4.6, 2.7, 27.0), (-9.0, -14.4), 0.10, 0.16, 17.0),
    "ripe_grain": Surface(CROPLAND, (6.6, 10.0, 12.5, 25.0), (-12.8, -19.2), 0.12, 0.06),
    "maize": Surface(CROPLAND, (3.4, 6.2, 4.0, 37.0), (-9.9, -16.2), 0.10, 0.08, 1.5),
    "green_crop": Surface(CROPLAND, (4.0, 7.6, 4.8, 39.0), (-11.4, -17.8), 0.10, 0.06),
    "bare_soil": Surface(CROPLAND, (8.0, 10.4, 13.4, 19.0), (-11.8, -20.0), 0.14, 0.06),
    "stubble": Surface(CROPLAND, (9.0, 12.4, 15.8, 25.0), (-12.4, -20.2), 0.12, 0.06),
    "meadow": Surface(GRASSLAND, (3.9, 7.4, 4.9, 33.0), (-11.9, -18.6), 0.12, 0.13),
    "pasture": Surface(GRASSLAND, (5.0, 8.2, 7.0, 28.0), (-12.3, -19.2), 0.14, 0.15),
    "garden": Surface(GRASSLAND, (5.0, 7.6, 6.4, 26.0), (-11.0, -17.0), 0.10, 0.22),
    "asphalt": Surface(ROAD, (9.6, 10.6, 11.6, 14.8), (-17.5, -25.0), 0.10, 0.06),
    "gravel": Surface(ROAD, (10.6, 13.0, 15.6, 21.0), (-15.5, -23.0), 0.12, 0.08),
    "red_roof": Surface(BUILDING, (8.6, 10.4, 14.8, 19.5), (-7.0, -14.0), 0.22, 0.08, 8.0),
    "grey_roof": Surface(BUILDING, (10.2, 11.4, 12.4, 15.8), (-7.5, -14.5), 0.24, 0.08, 8.0),
    "hall": Surface(BUILDING, (18.0, 19.5, 20.5, 23.0), (-6.0, -13.0), 0.28, 0.06, 10.0),
}

INDEX: dict[str, int] = {name: i for i, name in enumerate(SURFACES)}
"""Index of each surface in maps of surfaces."""


def column(attribute: str) -> npt.NDArray[np.float32]:
    """One attribute of all surfaces, by surface index."""
    return np.array([getattr(surface, attribute) for surface in SURFACES.values()], dtype=np.float32)


CODES: npt.NDArray[np.uint8] = column("code").astype(np.uint8)
"""Label code of each surface index."""


@dataclass(frozen=True)
class Landscape:
    """A landscape on a grid of 10 m; all maps are H x W.

    Attributes:
        surface: Index of the surface of each pixel.
        parcel: Index of the parcel of each pixel.
        n_parcels: Number of parcels.
        across: Distance across the furrows in pixels.
        terrain: Height of the terrain in metres.
        facing: How squarely a building faces the radar, 0..1.
    """

    surface: npt.NDArray[np.int8]
    parcel: npt.NDArray[np.int32]
    n_parcels: int
    across: FloatMap
    terrain: FloatMap
    facing: FloatMap

    @property
    def label(self) -> npt.NDArray[np.uint8]:
        """Label codes 1..6, H x W."""
        return CODES[self.surface]


@dataclass(frozen=True)
class Parcels:
    """Fields and the tracks between their blocks; all maps are H x W.

    Attributes:
        block: Index of the block.
        parcel: Index of the parcel, 0..n-1.
        n: Number of parcels.
        across: Distance in pixels across the direction of ploughing, for furrows.
        track: Whether a farm track runs along this edge of a block.
    """

    block: npt.NDArray[np.int32]
    parcel: npt.NDArray[np.int32]
    n: int
    across: FloatMap
    track: Mask


def make_landscape(rng: np.random.Generator, size: int, margin: int) -> Landscape:
    """Make a landscape of `size` pixels a side with `margin` more on all sides.

    Every class occurs within the middle `size` pixels.
    """
    side = size + 2 * margin
    shape = (side, side)
    bank = _river_distance(rng, shape, size)
    terrain = 60.0 * standardise(fractal(rng, shape, 220.0, 4) + 0.9 * np.tanh(bank / 90.0))
    lake = _lakes(rng, shape, size)
    river = bank < 0
    parcels = _make_parcels(rng, shape)
    surface = _crops_and_grass(rng, parcels, bank)
    forest = _woods(rng, shape, terrain, bank)
    wet = river | lake
    villages = place_villages(rng, wet | (bank < 14.0), size, max(2, round(size / 110)))
    rows, cols = np.mgrid[:side, :side].astype(np.float32)
    near = np.min([np.hypot(cols - np.float32(v.x), rows - np.float32(v.y)) / v.radius for v in villages], axis=0)
    forest &= near + 0.3 * fractal(rng, shape, 24.0, 3) > 1.3
    surface[forest] = _tree_species(rng, parcels, shape)[forest]
    road = lay_roads(rng, villages, wet, forest, terrain)
    built = build(rng, villages, wet | road, farms=round((size / 110) ** 2 * 0.8))
    surface[built.ground] = INDEX["garden"]
    surface[parcels.track & ~forest] = INDEX["gravel"]
    surface[lake] = INDEX["turbid_water"] if rng.random() < 0.5 else INDEX["algal_water"]
    surface[river] = INDEX["clear_water"]
    algal = wet & (smooth_noise(rng, shape, 90.0) > 0.45)
    surface[algal] = INDEX["algal_water"]
    surface[built.street | road] = INDEX["asphalt"]
    roof = built.roof >= 0
    surface[roof] = built.roof[roof]
    return Landscape(surface, parcels.parcel, parcels.n, parcels.across, terrain.astype(np.float32), built.facing)


def _river_distance(rng: np.random.Generator, shape: tuple[int, int], size: int) -> FloatMap:
    """Signed distance to the bank of a meandering river through the scene in pixels, negative in the water."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    centre = np.array(shape[::-1]) / 2.0 + normal * rng.uniform(-0.2, 0.2) * size
    s = np.arange(-max(shape), max(shape), 1.0)
    swing = min(1.0, size / 500.0)
    phases = rng.uniform(0.0, 2.0 * np.pi, 6)
    lateral = swing * sum(
        amplitude * np.sin(2.0 * np.pi * s / wavelength + phase)
        for amplitude, wavelength, phase in zip((55.0, 26.0, 11.0), (560.0, 210.0, 97.0), phases[:3], strict=True)
    )
    # sliding along the course bends the sine waves into meanders that lean over
    slide = swing * (
        13.0 * np.sin(2.0 * np.pi * s / 131.0 + phases[3]) + 2.0 * np.sin(2.0 * np.pi * s / 47.0 + phases[4])
    )
    line = centre + (s + slide)[:, None] * direction + np.asarray(lateral)[:, None] * normal
    width = rng.uniform(3.2, 6.0) + 1.1 * smooth_noise(rng, shape, 40.0)
    return np.asarray(distance_to(densify(line), shape) - np.maximum(width, 2.0), dtype=np.float32)


def _lakes(rng: np.random.Generator, shape: tuple[int, int], size: int) -> Mask:
    """A few lakes and ponds of irregular outline."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    outline = fractal(rng, shape, 36.0, 3)
    water = np.zeros(shape, dtype=bool)
    for radius in rng.permutation([0.055, 0.03, 0.02, 0.013])[: rng.integers(2, 5)] * min(size, 900):
        margin = (np.array(shape) - size) / 2.0
        row, col = margin + rng.uniform(0.08, 0.92, 2) * size
        stretch = rng.uniform(0.6, 1.0)
        tilt = rng.uniform(0.0, np.pi)
        u = (x - col) * np.cos(tilt) + (y - row) * np.sin(tilt)
        v = (y - row) * np.cos(tilt) - (x - col) * np.sin(tilt)
        water |= np.hypot(u, v / stretch) < radius * (1.0 + 0.28 * outline)
    return water


def _make_parcels(rng: np.random.Generator, shape: tuple[int, int]) -> Parcels:
    """Cut the land into blocks, with tracks along 30 % of their edges, and the blocks into strips and parcels."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    y += 9.0 * smooth_noise(rng, shape, 70.0) + 1.2 * smooth_noise(rng, shape, 14.0)
    # centres of blocks on a jittered lattice that extends beyond the map
    rows, cols = (int(np.ceil(side / BLOCK_PX)) + 2 for side in shape)
    lattice = np.stack(np.meshgrid(np.arange(cols) - 0.5, np.arange(rows) - 0.5), -1).reshape(-1, 2)
    centres = (lattice + rng.uniform(-0.42, 0.42, lattice.shape)) * BLOCK_PX
    distance, nearest = cKDTree(centres).query(np.stack([x, y], -1), k=2)
    block, other = nearest[..., 0], nearest[..., 1]
    between = np.hypot(*(centres[block] - centres[other]).transpose(2, 0, 1))
    to_edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2.0 * np.maximum(between, 1.0))
    has_track = rng.random((len(centres), len(centres))) < 0.3
    track = (to_edge < 0.75) & has_track[np.minimum(block, other), np.maximum(block, other)]
    across, key = _strips(rng, x, y, block, len(centres))
    parcel = np.unique(key, return_inverse=True)[1].reshape(shape).astype(np.int32)
    return Parcels(block.astype(np.int32), parcel, int(parcel.max()) + 1, across, track)


def _strips(
    rng: np.random.Generator, x: FloatMap, y: FloatMap, block: npt.NDArray[np.int64], n: int
) -> tuple[FloatMap, npt.NDArray[np.int64]]:
    """Cut each of `n` blocks into strips and these into parcels: distance across the strips, and a key per parcel."""
    angle = rng.uniform(0.0, np.pi, 1) + rng.choice([0.0, np.pi / 2], n) + rng.normal(0.0, 0.28, n)
    width = np.exp(rng.uniform(np.log(9.0), np.log(30.0), n))
    length = width * rng.uniform(1.8, 4.5, n)
    phase = rng.uniform(0.0, 100.0, n)
    cos, sin = np.cos(angle)[block], np.sin(angle)[block]
    across, along = cos * x + sin * y, cos * y - sin * x
    u = across / width[block] + phase[block]
    # a wave makes neighbouring strips unequally wide; its slope stays below one, so strips stay in order
    strip = np.floor(u + 0.30 * np.sin(u * 2.1)).astype(np.int64)
    shift = rng.uniform(0.0, 1.0, 997)[(strip + 31 * block) % 997]
    piece = np.floor(along / length[block] + shift).astype(np.int64)
    key = (block * 4096 + strip % 4096) * 4096 + piece % 4096
    return across.astype(np.float32), key


def _crops_and_grass(rng: np.random.Generator, parcels: Parcels, bank: FloatMap) -> npt.NDArray[np.int8]:
    """Surface of each parcel; grass is more common along the river and in some blocks."""
    counts = np.maximum(np.bincount(parcels.parcel.ravel(), minlength=parcels.n), 1)
    to_river = np.bincount(parcels.parcel.ravel(), bank.ravel(), parcels.n) / counts
    block = np.zeros(parcels.n, dtype=np.int64)
    block[parcels.parcel.ravel()] = parcels.block.ravel()
    preference = rng.normal(0.0, 0.22, int(parcels.block.max()) + 1)[block]
    grass = rng.random(parcels.n) < 0.24 + preference + 0.55 * np.exp(-np.maximum(to_river, 0.0) / 28.0)
    crop = rng.choice([INDEX[name] for name in CROPS], parcels.n, p=[0.26, 0.22, 0.2, 0.16, 0.16])
    meadow = np.where(rng.random(parcels.n) < 0.6, INDEX["meadow"], INDEX["pasture"])
    return np.where(grass, meadow, crop).astype(np.int8)[parcels.parcel]


def _woods(rng: np.random.Generator, shape: tuple[int, int], terrain: FloatMap, bank: FloatMap) -> Mask:
    """Large woods on the heights, copses in the fields and a gallery of trees along the river."""
    large = fractal(rng, shape, 120.0, 6, 0.6) + 0.35 * standardise(terrain)
    copses = fractal(rng, shape, 30.0, 3)
    gallery = (bank < 3.5) & (smooth_noise(rng, shape, 20.0) > 0.1)
    return np.asarray((large > np.quantile(large, 0.79)) | (copses > 2.35) | gallery)


def _tree_species(rng: np.random.Generator, parcels: Parcels, shape: tuple[int, int]) -> npt.NDArray[np.int8]:
    """Conifers or broadleaf everywhere, by a smooth field with steps between some parcels."""
    steps = rng.normal(0.0, 0.5, parcels.n).astype(np.float32)[parcels.parcel]
    conifers = smooth_noise(rng, shape, 110.0) + steps > 0
    return np.where(conifers, INDEX["conifers"], INDEX["broadleaf"]).astype(np.int8)


@dataclass(frozen=True)
class Village:
    """A settlement: centre and radius in pixels, and the direction of its streets in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass
class Built:
    """What settlements add to the map; all H x W.

    Attributes:
        ground: Built-up area, gardens included.
        street: Streets.
        roof: Index of the surface of a building, or -1.
        facing: How squarely the walls of a building face the radar, 0..1.
    """

    ground: Mask
    street: Mask
    roof: npt.NDArray[np.int8]
    facing: FloatMap


def place_villages(rng: np.random.Generator, blocked: Mask, size: int, n: int) -> list[Village]:
    """Place `n` villages far apart on free ground; the first is a small town in the middle of the scene.

    The scene has `size` pixels a side and is in the middle of the map.
    """
    height, width = blocked.shape
    margin = np.array([width - size, height - size]) / 2.0
    scale = min(1.0, size / 500.0)
    villages: list[Village] = []

    def clearance(place: Points) -> float:
        """Distance to the nearest village, less a penalty on blocked ground."""
        distance = min((float(np.hypot(place[0] - v.x, place[1] - v.y)) - v.radius for v in villages), default=1e3)
        return distance - 1e4 * bool(blocked[int(place[1]), int(place[0])])

    for i in range(n):
        low, high = (0.25, 0.75) if i == 0 else (0.04, 0.96)
        places = margin + rng.uniform(low, high, (60, 2)) * size
        room = np.array([clearance(place) for place in places])
        x, y = places[int(np.argmax(np.minimum(room, 150.0 * scale)))]
        radius = scale * (rng.uniform(66.0, 88.0) if i == 0 else rng.uniform(24.0, 44.0))
        villages.append(Village(x, y, radius, rng.uniform(0.0, np.pi / 2)))
    return villages


def lay_roads(
    rng: np.random.Generator, villages: list[Village], water: Mask, forest: Mask, terrain: FloatMap
) -> Mask:
    """Map of the roads, H x W.

    Main roads lead from the town, the first of the villages, to three edges of the map. Side roads join each village
    to one or two neighbours, and some villages to the edge.
    """
    height, width = shape = (water.shape[0], water.shape[1])
    cost = _travel_cost(rng, water, forest, terrain)
    centres = np.array([[v.x, v.y] for v in villages])
    ends = np.array(
        [
            [0.0, rng.uniform(0.2, 0.8) * height],
            [width - 1.0, rng.uniform(0.2, 0.8) * height],
            [rng.uniform(0.2, 0.8) * width, 0.0],
            [rng.uniform(0.2, 0.8) * width, height - 1.0],
        ]
    )
    main = [_route(cost, centres[0], end) for end in ends[rng.permutation(4)[:3]]]
    side = [np.empty((0, 2))]
    for i in range(1, len(centres)):
        order = np.argsort(np.hypot(*(centres[:i] - centres[i]).T))
        side += [_route(cost, centres[i], centres[j]) for j in order[: 1 + int(rng.random() < 0.5)]]
    for centre in centres[1:]:
        end = ends[int(np.argmin(np.hypot(*(ends - centre).T)))]
        if rng.random() < 0.5:
            side.append(_route(cost, centre, end + rng.uniform(-40.0, 40.0, 2)))
    on_main = distance_to(np.concatenate(main), shape) < 1.25
    return np.asarray(on_main | (distance_to(np.concatenate(side), shape) < 0.9))


def _travel_cost(rng: np.random.Generator, water: Mask, forest: Mask, terrain: FloatMap) -> FloatMap:
    """Cost of a road per coarse pixel: high for bridges, moderate in woods and on slopes."""
    slope = np.hypot(*np.gradient(terrain))
    cost = 1.0 + 14.0 * water + 0.8 * forest + 1.5 * slope / max(float(slope.max()), 1e-6)
    cost = cost + 0.9 * np.abs(smooth_noise(rng, (water.shape[0], water.shape[1]), 24.0))
    start = ROUTE_STEP_PX // 2
    coarse = ndimage.uniform_filter(cost, ROUTE_STEP_PX)[start::ROUTE_STEP_PX, start::ROUTE_STEP_PX]
    return np.asarray(coarse, dtype=np.float32)


def _route(cost: FloatMap, start: Points, end: Points) -> Points:
    """The cheapest way between two points (x, y in full pixels), smoothed; N x 2 points."""
    last = np.array(cost.shape) - 1
    cells = [tuple(np.clip(point[::-1] // ROUTE_STEP_PX, 0, last).astype(int)) for point in (start, end)]
    path, _ = route_through_array(cost, *cells, fully_connected=True, geometric=True)
    points = (np.array(path, dtype=np.float64)[:, ::-1] + 0.5) * ROUTE_STEP_PX
    points[0], points[-1] = start, end
    return densify(np.asarray(ndimage.gaussian_filter1d(points, 3.0, axis=0, mode="nearest")))


def build(rng: np.random.Generator, villages: list[Village], blocked: Mask, farms: int) -> Built:
    """Build villages and a number of isolated farmsteads on ground that water and roads do not block."""
    shape = (blocked.shape[0], blocked.shape[1])
    built = Built(
        np.zeros(shape, bool), np.zeros(shape, bool), np.full(shape, -1, np.int8), np.zeros(shape, np.float32)
    )
    outline = fractal(rng, shape, 28.0, 3)
    for village in villages:
        _build_village(rng, village, outline, blocked, built)
    for _ in range(farms):
        x, y = rng.uniform(0.03, 0.97, 2) * (shape[1], shape[0])
        angle = rng.uniform(0.0, np.pi / 2)
        for _ in range(int(rng.integers(2, 5))):
            place = np.array([x, y]) + rng.normal(0.0, 4.0, 2)
            _build_house(rng, place, rng.uniform(1.8, 3.2, 2), angle, blocked, built)
    return built


def _build_village(
    rng: np.random.Generator, village: Village, outline: FloatMap, blocked: Mask, built: Built
) -> None:
    """Draw streets on a bent grid inside an irregular outline, and buildings along them."""
    shape = outline.shape
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = x - village.x, y - village.y
    reach = np.hypot(dx, dy) / village.radius + 0.22 * outline
    bend = 0.0035 * dx * dy / max(village.radius / 40.0, 1.0)
    u = dx * np.cos(village.angle) + dy * np.sin(village.angle) + 2.5 * outline
    v = dy * np.cos(village.angle) - dx * np.sin(village.angle) + bend * 0.5
    spacing_u, spacing_v = rng.uniform(17.0, 21.0), rng.uniform(26.0, 36.0)
    ground = reach < 1.0
    lane = (np.abs((u + spacing_u / 2) % spacing_u - spacing_u / 2) < 0.8) | (
        np.abs((v + spacing_v / 2) % spacing_v - spacing_v / 2) < 0.8
    )
    built.ground |= ground & ~blocked
    built.street |= lane & ground & ~blocked
    taken = blocked | built.street
    inside = np.argwhere(ground & ~taken)
    n_sites = int(0.075 * len(inside)) + 3
    sites = inside[rng.integers(0, len(inside), n_sites)] if len(inside) else inside
    for row, col in sites:
        density = 1.15 - reach[row, col]
        if rng.random() > density:
            continue
        large = rng.random() < 0.05 and village.radius > 30.0
        half = rng.uniform(3.0, 5.5, 2) if large else rng.uniform(1.3, 2.7, 2)
        _build_house(rng, np.array([col, row], float), half, village.angle, taken, built, hall=large)


def _build_house(
    rng: np.random.Generator,
    place: Points,
    half: Points,
    angle: float,
    blocked: Mask,
    built: Built,
    hall: bool = False,
) -> None:
    """Draw one building as a turned rectangle of half sides `half`, unless the ground is taken."""
    turn = angle + rng.normal(0.0, 0.06)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = place + np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * half @ axes
    rows, cols = polygon(corners[:, 1], corners[:, 0], built.roof.shape)
    if len(rows) == 0 or blocked[rows, cols].mean() > 0.25 or (built.roof[rows, cols] >= 0).any():
        return
    free = ~blocked[rows, cols]
    rows, cols = rows[free], cols[free]
    name = "hall" if hall else ("red_roof" if rng.random() < 0.6 else "grey_roof")
    built.roof[rows, cols] = INDEX[name]
    # the radar looks along x: walls across that direction give the strongest double bounce
    built.facing[rows, cols] = max(abs(np.cos(turn)), abs(np.sin(turn))) ** 6 * rng.uniform(0.6, 1.0)
