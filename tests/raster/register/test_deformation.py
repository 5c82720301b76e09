import numpy as np

from tmcnet.raster.register.deformation import AffineMap, LatticeMap, largest_displacement, lattice, on_lattice

SHAPE = (300, 700)
TURN = AffineMap(np.array([[0.99, -0.02, 5.0], [0.02, 1.01, -3.0]]))


def wave(points):
    x, y = 2 * np.pi * points.T / 500
    return points + 6 * np.stack([np.sin(x) * np.cos(y), np.cos(1.3 * x + y)], axis=1)


def everywhere():
    return np.stack(np.meshgrid(np.linspace(0, 699, 60), np.linspace(0, 299, 40)), -1).reshape(-1, 2)


def test_the_lattice_covers_the_scene_and_a_step_more_in_square_steps():
    nodes = lattice(SHAPE)
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


def test_the_largest_displacement_counts_every_edge():
    assert largest_displacement(AffineMap(np.array([[1, 0, 3.0], [0, 1, -4.0]])), SHAPE) == 5.0
    corners = np.array([[0.0, 0.0], [699, 0], [0, 299], [699, 299]])
    assert np.isclose(largest_displacement(TURN, SHAPE), np.hypot(*(TURN(corners) - corners).T).max())
