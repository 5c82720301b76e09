import json

import numpy as np
import pytest

from tmcnet.raster.register.alignment import IDENTITY, NEIGHBOURHOOD_PX, AffineMap, Alignment, Residuals, on_lattice

SHIFT = np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]])


def record(points, status="aligned", model="shift", matrix=SHIFT, nodes=()):
    """What `alignment.json` holds, written and read again."""
    form = None if matrix is None else matrix.tolist()
    found = Alignment(status, "", points, 0.5, model, form, [list(n) for n in nodes])
    return json.loads(json.dumps(found.to_dict() | {"digests": {"optical": "0"}, "speckle": {"looks": 4.0}}))


def grid_of(off, inlier=1):
    """Points every 32 pixels of a scene of 1,024, displaced by 3 and -2 pixels and `off` in x."""
    return [[x, y, 3 + off(x, y), -2.0, inlier] for y in range(16, 1024, 32) for x in range(16, 1024, 32)]


def test_the_residual_is_that_around_the_window():
    found = Residuals.of(record(grid_of(lambda x, y: 2.0 if x > 512 else 0.5 if y > 512 else 0.0)))
    assert found.near((0, 0, 128, 128)) == pytest.approx(0)
    assert found.near((896, 0, 128, 128)) == pytest.approx(0.5)
    assert found.near((100, 896, 128, 128)) == pytest.approx(2)
    # columns 256 to 512 and, as far off the window, 512 to 768
    assert found.near((100, 448, 128, 128)) == pytest.approx(np.sqrt(2**2 / 2))


@pytest.mark.parametrize(("n", "known"), [(2, False), (3, True)])
def test_few_points_near_give_no_residual(n, known):
    near = [[300.0 + NEIGHBOURHOOD_PX, 300.0 + i, 4.0, -2.0, 1] for i in range(n)]
    far = [[301.0 + NEIGHBOURHOOD_PX, 300.0 + i, 9.0, -2.0, 1] for i in range(20)]
    outliers = [[280.0, 300.0 + i, 50.0, 0.0, 0] for i in range(20)]
    found = Residuals.of(record([*far, *near, *outliers])).near((300, 200, 50, 101))
    assert found == (pytest.approx(1) if known else None)


def test_a_map_of_nodes_is_applied():
    def bent(places):
        return places + np.stack([3 + 4 * np.sin(places[:, 1] / 200), np.full(len(places), -2.0)], axis=1)

    points = grid_of(lambda x, y: 4 * np.sin(y / 200))
    nodes = on_lattice(bent, (1024, 1024))
    found = Residuals.of(record(points, model="thin_plate", matrix=None, nodes=nodes.tolist()))
    assert found.near((400, 400, 128, 128)) < 0.01
    straight = Residuals.of(record(points, model="shift"))
    assert straight.near((400, 400, 128, 128)) > 1


@pytest.mark.parametrize("status", ["already_aligned", "rejected"])
def test_without_a_correction_the_displacement_itself_is_left(status):
    found = Residuals.of(record(grid_of(lambda x, y: 0.0), status, "none", IDENTITY))
    assert found.near((400, 400, 128, 128)) == pytest.approx(np.hypot(3, 2))


def test_scenes_without_points():
    record_of_one = Alignment("single_sensor", "nothing to register").to_dict()
    assert Residuals.of(record_of_one).near((0, 0, 128, 128)) is None
    assert AffineMap(np.array(record_of_one["matrix"]))(np.zeros((1, 2))).tolist() == [[0, 0]]
