"""Training on points: crops hold one, nothing beside them is learnt from, and files that do not fit are told."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.splits.tile_indexes import write_hashes
from tests.train.test_finetune import train
from tests.train.tiny import SIZE, build_tiles, configs
from tmcnet.config import ContextConfig, Run
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.model.context import ContextFeatures
from tmcnet.raster.io.reader import read_labels
from tmcnet.seeding import generator
from tmcnet.splits.files import points_file, read_list
from tmcnet.splits.points import read_tile_points
from tmcnet.store import TileStore
from tmcnet.train import finetune as module
from tmcnet.train.perceptron import draw_pixels
from tmcnet.train.samples import (
    SCALE_RANGE,
    BatchBuilder,
    Placement,
    class_counts,
    class_weights,
    draw_placement,
    over_a_point,
    take_label,
)

RUN = Run.parse("mssnet-corrected__random__P6__s1")


def write_points(root, name, per_tile, tiles=("s0_r0_c0", "s0_r1_c0", "s0_r2_c0")):
    """Points of both classes, a number of each in each tile."""
    random = np.random.default_rng(1)
    lines = ["tile,class,pixel"]
    for tile in tiles:
        label = read_labels(root / "tiles" / "label" / f"{tile}.tif")
        for class_id, word in enumerate(("left", "right")):
            chosen = np.sort(random.choice((label == class_id).sum(), per_tile, replace=False))
            lines += [f"{tile},{word},{pixel}" for pixel in chosen]
    points_file(root / "splits", name).write_text("\n".join(lines) + "\n")
    (root / "splits" / f"{name}_RGB.txt").write_text("".join(f"{tile}\n" for tile in tiles))
    write_hashes(root / "splits")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = build_tiles(tmp_path_factory.mktemp("world"))
    write_points(root, "trainP6", 2)
    write_points(root, "trainP1", 1, ("s0_r1_c0",))
    return root


def tiles_of(root, name):
    names, classes = read_list(root / "splits" / f"{name}_RGB.txt"), ["left", "right"]
    scaling = Normalisation.read(root / "normalisation.json")
    points = read_tile_points(points_file(root / "splits", name), names, classes) if "P" in name else None
    return TileDataset(TileStore(root / "tiles"), names, scaling, with_labels=True, cache_gib=1, points=points)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    crop=st.sampled_from([8, 20, 32, 33, 64]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 10**6),
)
def test_a_crop_holds_the_point_whatever_its_scale_and_place(height, width, crop, place, seed):
    row, col = (round(share * (length - 1)) for share, length in zip(place, (height, width), strict=True))
    label = torch.full((height, width), 255)
    label[row, col] = 3
    random = generator(seed, "test")
    drawn = draw_placement(height, width, crop, random)
    placement = over_a_point(drawn, label, crop, random)
    assert (take_label(label, placement, crop) == 3).sum() >= 1
    assert (placement.side, placement.turns, placement.flip) == (drawn.side, drawn.turns, drawn.flip)
    for first, length in ((placement.top, height), (placement.left, width)):
        beyond = 0 if drawn.side == crop else drawn.side / crop / 2 + 1e-9
        low, high = sorted((0, length - drawn.side))
        assert low - beyond <= first <= high + beyond
        assert drawn.side != crop or first == int(first)  # whole pixels stay whole


@pytest.mark.parametrize("scale", [1, *SCALE_RANGE])
def test_a_point_comes_anywhere_in_the_crop(scale):
    label = torch.full((100, 100), 255)
    label[40, 60] = 0
    crop = 10
    found = np.zeros((crop, crop))
    for seed in range(2000):
        placement = over_a_point(Placement(0, 0, crop / scale, 0, False), label, crop, generator(seed, "test"))
        found += (take_label(label, placement, crop) == 0).numpy()
    # each of the hundred places about 20 times; those at the edges come in for half as much
    assert (found > 0).all()
    assert found[2:-2, 2:-2].max() < 3 * found[2:-2, 2:-2].mean()


def test_every_point_of_a_tile_has_its_turn():
    label = torch.full((50, 50), 255)
    label[[3, 20, 48], [45, 20, 1]] = torch.tensor([0, 1, 2])
    seen = [
        take_label(label, over_a_point(Placement(0, 0, 8, 0, False), label, 8, generator(seed, "test")), 8)
        for seed in range(60)
    ]
    counts = [sum(int((crop == class_id).any()) for crop in seen) for class_id in range(3)]
    assert sum(counts) == 60
    assert min(counts) > 8


@pytest.mark.parametrize("crop_size", [32, 40, 64])
def test_every_sample_of_a_batch_is_labelled_and_right(world, crop_size):
    config, _, sensors, _ = configs(crop_size=crop_size)
    tiles = tiles_of(world, "trainP1")
    assert class_counts(tiles, 2).tolist() == [1, 1]
    for step in range(20):
        batch = BatchBuilder(tiles, config, sensors, "mssnet", 1)(step)
        assert (batch.label != 255).flatten(1).any(1).all()
        # enlarged crops show a pixel up to four times
        assert (batch.label != 255).flatten(1).sum(1).max() <= 8
        for optical, label in zip(batch.images["optical"].mean(1), batch.label, strict=True):
            if (label == 0).any() and (label == 1).any():
                assert optical[label == 1].mean() > optical[label == 0].mean()


def test_dense_labels_are_cropped_as_ever(world):
    config, _, sensors, _ = configs()
    tiles = tiles_of(world, "train")
    batch = BatchBuilder(tiles, config, sensors, "mssnet", 1)(2)
    for place, (name, label) in enumerate(zip(batch.names, batch.label, strict=True)):
        placement = draw_placement(SIZE, SIZE, 32, generator(1, "finetune", 2, place))
        truth = tiles[tiles.names.index(name)].truth
        assert torch.equal(label, take_label(truth, placement, 32))


@pytest.mark.parametrize("copies", [[], ["clouds", "no_data"]])
def test_a_network_learns_from_points(world, tmp_path, copies):
    train(world, tmp_path / "run", run=RUN, steps=60, validate_every=20, learning_rate=5e-3, covered_copies=copies)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["labelled_pixels"] == {"left": 6, "right": 6}
    assert summary["class_weights"] == {"left": 1.0, "right": 1.0}
    assert summary["tiles"] == 3
    assert (summary["run"]["points"], summary["run"]["fraction"]) == (6, None)
    assert summary["validation"]["miou"] > 0.7


def test_a_pixelwise_baseline_learns_from_points(world, tmp_path):
    run = Run.parse("pixel_logistic-baseline__random__P6__s1")
    train(world, tmp_path / "run", run=run)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["labelled_pixels"] == {"left": 6, "right": 6}
    assert summary["validation"]["miou"] > 0.8


def test_only_points_are_drawn_for_pixelwise_baselines(world):
    tiles = tiles_of(world, "trainP6")
    counts = class_counts(tiles, 2)
    pixels = draw_pixels(
        ContextFeatures(ContextConfig(windows=[], differences=False, relative_window=None)),
        tiles,
        counts,
        np.ones(2),
        configs()[0],
        seed=1,
    )
    labels = [tiles[i].truth != 255 for i in range(3)]
    optical = torch.cat([tiles[i].images["optical"][0][label] for i, label in enumerate(labels)])
    assert len(pixels.truth) == 12
    np.testing.assert_array_equal(np.sort(pixels.values[:, 0]), np.sort(optical.numpy()))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice", "cross_entropy_dice"])
def test_a_batch_without_labels_has_a_loss_of_0(world, loss):
    config, model, sensors, _ = configs(loss=loss)
    tiles = tiles_of(world, "trainP6")
    build = BatchBuilder(tiles, config, sensors, "mssnet", 1)
    network = module._build(RUN, sensors, 2, model, seed=1)
    step = module.FinetuneModule(network, config, build, class_weights(class_counts(tiles, 2)), tiles)
    batch = build(0)
    found = step(batch._replace(label=torch.full_like(batch.label, 255)))["loss"]
    found.backward()
    assert found == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in network.parameters())


def test_a_saved_state_of_other_points_is_not_taken_up(world):
    config = configs()[0]
    scaling = Normalisation.read(world / "normalisation.json")
    some, others = (tiles_of(world, "trainP6") for _ in range(2))
    others.points = {**others.points, "s0_r0_c0": others.points["s0_r0_c0"] + [0, 1]}
    said = [
        module._Data(
            *[tiles] * 2,
            None,
            *[tiles] * 2,
            scaling=scaling,
            classes=None,
            labelled_pixels=None,
            counts=None,
            balance=None,
        )
        for tiles in (some, others, tiles_of(world, "trainP6"))
    ]
    first, second, again = (data.settings(config, None) for data in said)
    assert first == again != second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), r"trainP2_points.csv: cannot be read .* run the same command again"),
        (lambda path: path.write_text("tile,class,pixel\ns0_r1_c0,up,1\n"), "line 2 names no class and pixel"),
        (lambda path: path.write_text("tile,class,pixel\ns0_r0_c0,left,1\n"), "do not name the same tiles: s0_r0_c0"),
    ],
)
def test_points_that_do_not_fit_stop_the_run(world, tmp_path, change, said):
    write_points(world, "trainP2", 1, ("s0_r1_c0",))
    points = points_file(world / "splits", "trainP2")
    change(points)
    if points.exists():  # the content is checked also where the manifest allows it
        write_hashes(world / "splits")
    with pytest.raises(InputError, match=said):
        train(world, tmp_path / "run", run=Run.parse("mssnet-corrected__random__P2__s1"))
    assert not (tmp_path / "run").exists()
