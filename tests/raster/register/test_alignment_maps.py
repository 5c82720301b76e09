import numpy as np

from tmcnet.raster.register.alignment import (
    AffineMap,
    LatticeMap,
    at_full_scale,
    at_scale,
    displacements,
    on_lattice,
    rotation_and_scale,
)

SHAPE = (300, 700)
TURN = AffineMap(np.array([[0.99, -0.02, 5.0], [0.02, 1.01, -3.0]]))


def wave(points):
    x, y = 2 * np.pi * points.T / 500
    return points + 6 * np.stack([np.sin(x) * np.cos(y), np.cos(1.3 * x + y)], axis=1)


def everywhere():
    return np.stack(np.meshgrid(np.linspace(0, 699, 60), np.linspace(0, 299, 40)), -1).reshape(-1, 2)


def test_the_lattice_covers_the_scene_and_a_step_more_in_square_steps():
    nodes = on_lattice(TURN, SHAPE)[:, :2]
    assert (nodes.min(axis=0) == -35).all()
    assert (nodes.max(axis=0) >= [699 + 30, 299 + 30]).all()
    assert np.unique(np.diff(np.unique(nodes[:, 0]))) == 35 == np.unique(np.diff(np.unique(nodes[:, 1])))


def test_nodes_hold_a_smooth_map():
    assert np.abs(LatticeMap(on_lattice(wave, SHAPE))(everywhere()) - wave(everywhere())).max() < 0.06


def test_nodes_hold_an_affine_map_up_to_the_edges():
    found = LatticeMap(on_lattice(TURN, SHAPE))(everywhere())
    np.testing.assert_allclose(found, TURN(everywhere()), atol=1e-5)


def test_beyond_the_lattice_the_displacement_stays():
    where = LatticeMap(on_lattice(TURN, SHAPE))
    far = np.array([[-500.0, 100.0], [-900.0, 100.0]])
    moved = where(far) - far
    assert np.isfinite(moved).all() and np.allclose(moved[0], moved[1], atol=0.5)


def test_displacements_count_every_edge():
    assert (displacements(AffineMap(np.array([[1, 0, 3.0], [0, 1, -4.0]])), SHAPE) == [3.0, -4.0]).all()
    corners = np.array([[0.0, 0.0], [699, 0], [0, 299], [699, 299]])
    largest = np.hypot(*displacements(TURN, SHAPE).T).max()
    assert np.isclose(largest, np.hypot(*(TURN(corners) - corners).T).max())


def test_changing_the_scale_keeps_pixel_centres():
    # pixel 0 of the small image covers pixels 0 to 3 of the large one: its centre is 1.5
    half = at_full_scale(np.array([[1, 0, 2.0], [0, 1, -1.0]]), 4)
    np.testing.assert_allclose(AffineMap(half)(np.array([[1.5, 1.5]])), [[9.5, -2.5]])
    turn = rotation_and_scale(2.0, 1.01, 50, 50)
    np.testing.assert_allclose(at_full_scale(turn, 4), rotation_and_scale(2.0, 1.01, 200, 200), atol=1e-9)
    np.testing.assert_allclose(
        at_scale(AffineMap(rotation_and_scale(2.0, 1.01, 200, 200)), 4)(everywhere()), AffineMap(turn)(everywhere())
    )
