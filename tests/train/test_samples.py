import numpy as np
import pytest
import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.model.networks import build_network
from tmcnet.raster.io.reader import read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.store import TileStore
from tmcnet.train.perceptron import DetailLogits
from tmcnet.train.samples import BatchBuilder, class_counts, class_weights, take


def dataset(root):
    names = (root / "splits" / "train_RGB.txt").read_text().split()
    scaling = Normalisation.read(root / "normalisation.json")
    return TileDataset(TileStore(root / "tiles"), names, scaling, with_labels=True, cache_gib=1)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return dataset(build_tiles(tmp_path_factory.mktemp("world")))


def test_class_weights_by_hand():
    weights = class_weights(np.array([900, 100, 0]))
    raw = np.array([0.9, 0.1]) ** -0.5
    assert weights[:2].numpy() == pytest.approx(raw / (0.9 * raw[0] + 0.1 * raw[1]))
    assert weights[2] == 1
    assert class_weights(np.array([10**9, 1])).max() == 10


def test_modality_dropout_hides_one_sensor_of_a_sample(tiles):
    config, _, sensors, _ = configs(modality_dropout=0.5)
    batches = [BatchBuilder(tiles, config, sensors, "mssnet", 1)(step) for step in range(30)]
    optical, sar = (
        np.array([float(image.abs().max()) == 0 for batch in batches for image in batch.images[sensor]])
        for sensor in ("optical", "sar")
    )
    assert not (optical & sar).any()
    assert 0.1 < optical.mean() < 0.4
    assert 0.1 < sar.mean() < 0.4
    single = [BatchBuilder(tiles, config, sensors, "sar_only", 1)(step) for step in range(10)]
    assert all(float(i.abs().max()) > 0 for b in single for i in b.images["sar"])


@pytest.mark.parametrize(("cache_gib", "dropout"), [(1, 0.0), (1, 0.5), (0, 0.5)])
def test_logits_of_the_branch_are_those_of_the_place_in_the_tile(tmp_path, monkeypatch, cache_gib, dropout):
    """In crops that are turned, mirrored, scaled and at the edge, each without its hidden modality."""
    config, model, sensors, _ = configs(crop_size=32, modality_dropout=dropout)
    tiles = dataset(build_tiles(tmp_path, size=96))
    network = build_network("mssnet", "corrected", {"optical": 3, "sar": 1}, 2, model)
    torch.nn.init.normal_(network.detail.perceptron.layers[-1].weight)
    computed = []
    network.detail.register_forward_hook(lambda *_: computed.append(1))
    logits_of, seen = DetailLogits(network, tiles, cache_gib), set()
    for batch in map(BatchBuilder(tiles, config, sensors, "mssnet", 1), range(6)):
        found = logits_of(batch)
        for number, (_, _, index, placement, hidden, _) in enumerate(batch.crops):
            images = {n: image[None] * (n != hidden) for n, image in tiles[index].images.items()}
            with torch.no_grad():
                expected = take(network.detail(*images.values())[0], placement, 32)
            torch.testing.assert_close(found[number], expected)
            seen.add((hidden, placement.turns, placement.flip, placement.side == 32))
    assert len(seen) > 8
    crops, kinds = 24, len({(i, h) for i, h in logits_of._kept})
    assert len(computed) == crops + (kinds if cache_gib else crops)


def test_a_pasted_rectangle_has_image_label_and_logits_of_another_tile(tmp_path):
    config, model, sensors, _ = configs(crop_size=32, cutmix=0.5)
    tiles = dataset(build_tiles(tmp_path, size=96))
    network = build_network("mssnet", "corrected", {"optical": 3, "sar": 1}, 2, model)
    torch.nn.init.normal_(network.detail.perceptron.layers[-1].weight)
    logits_of, plain = (
        DetailLogits(network, tiles, 1),
        BatchBuilder(tiles, configs(crop_size=32)[0], sensors, "mssnet", 1),
    )
    pasted = 0
    for step in range(6):
        batch, without = BatchBuilder(tiles, config, sensors, "mssnet", 1)(step), plain(step)
        assert [crop.tile for crop in batch.crops] == [crop.tile for crop in without.crops]
        logits = logits_of(batch)
        for number, crop in enumerate(batch.crops):
            own = torch.ones(32, 32, dtype=torch.bool)
            if crop.pasted is not None:
                other, rows, columns = crop.pasted
                own[rows, columns] = False
                pasted += 1
                assert other.tile != crop.tile
                assert torch.equal(batch.label[number][~own], other.label[~own])
                assert torch.equal(batch.images["sar"][number][:, ~own], other.images["sar"][:, ~own])
                alone = batch._replace(label=other.label[None], crops=[other])
                torch.testing.assert_close(logits[number][:, ~own], logits_of(alone)[0][:, ~own])
                assert 0.05 < (~own).float().mean() < 0.7
            assert torch.equal(batch.label[number][own], without.label[number][own])
            assert torch.equal(batch.images["optical"][number][:, own], without.images["optical"][number][:, own])
            torch.testing.assert_close(logits[number][:, own], logits_of(without)[number][:, own])
    assert 6 < pasted < 18


def test_batches_depend_on_seed_and_step_alone(tiles):
    config, _, sensors, _ = configs()
    builder = BatchBuilder(tiles, config, sensors, "mssnet", 1)
    later = builder(3)
    builder(0)
    again = builder(3)
    assert torch.equal(later.images["optical"], again.images["optical"])
    assert torch.equal(later.label, again.label)
    assert not torch.equal(
        later.images["optical"], BatchBuilder(tiles, config, sensors, "mssnet", 2)(3).images["optical"]
    )


def test_no_data_stays_no_data_through_photometric_changes(tiles):
    config, _, sensors, _ = configs(crop_size=96)  # larger than the tiles
    batch = BatchBuilder(tiles, config, sensors, "mssnet", 1)(0)
    outside = batch.label == 255
    assert (batch.images["sar"] == 0).all(dim=1).float().mean() > 0.7
    assert (batch.images["optical"] == 0).all(dim=1).float().mean() > 0.7
    assert ((batch.images["optical"] == 0).all(dim=1) & ~outside).float().mean() < 0.02


def test_image_and_label_of_a_batch_agree(tiles):
    config, _, sensors, _ = configs()
    for step in range(10):
        batch = BatchBuilder(tiles, config, sensors, "mssnet", 1)(step)
        for optical, label in zip(batch.images["optical"], batch.label, strict=True):
            bright = [optical[:, label == k].median() for k in (0, 1) if (label == k).sum() > 20]
            assert len(bright) < 2 or bright[1] > bright[0] + 0.5
            guess = (optical.mean(0) > (max(bright) + min(bright)) / 2).long()
            if len(bright) == 2:
                assert (guess == label)[label != 255].float().mean() > 0.95


def test_counts_leave_out_void_and_refuse_foreign_ids(tmp_path):
    root = build_tiles(tmp_path)
    assert class_counts(dataset(root), 2).sum() == 4 * 39 * 40
    path = root / "tiles" / "label" / "s0_r1_c0.tif"
    label = read_labels(path)
    label[5, 5] = 7
    write_raster(path, label, None, nodata=255)
    with pytest.raises(InputError, match=r"s0_r1_c0: its label has ids \[7\]; there are 2 classes"):
        class_counts(dataset(root), 2)
    for name in ("s0_r0_c0", "s0_r1_c0", "s0_r2_c0", "s0_r3_c0"):
        write_raster(path.with_name(f"{name}.tif"), np.full((40, 40), 255, np.uint8), None, nodata=255)
    with pytest.raises(InputError, match="no pixel of the chosen tiles is labelled"):
        class_counts(dataset(root), 2)
