"""Two processes that share a batch give the loss, gradients and statistics of one that sees it whole."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tmcnet.config import ComputeConfig, MethodConfig, ModelConfig
from tmcnet.loss import TupleNTXent, reconstruction_error
from tmcnet.model.tmcnet import TMCNet
from tmcnet.train.distributed import SharedBatchNorm, SharedDropout, gather, gather_rows, launch, rank, share_layers

PROCESSES, TILES, PATCHES = 2, 6, 3
SHARE = TILES // PROCESSES
MODEL = ModelConfig(width=8, aspp_channels=16, decoder_channels=16)


def network():
    torch.manual_seed(0)
    method = MethodConfig(variant="reference", reconstruction=1)
    return TMCNet({"optical": 3, "sar": 1}, MODEL, method).double()


def views():
    random = torch.Generator().manual_seed(1)
    images = {
        name: tuple(torch.randn(2, TILES, bands, 32, 32, generator=random, dtype=torch.float64))
        for name, bands in (("optical", 3), ("sar", 1))
    }
    corners = tuple(torch.randint(0, 24, (2, TILES, PATCHES, 2), generator=random))
    return images, corners


def loss(embeddings, gathers):
    """Both levels, with the loss that keeps apart and the one that mixes the places of a tile."""
    whole, patches = (gather_rows(x) if gathers else x for x in (embeddings.whole, embeddings.patches[0]))
    groups = torch.arange(len(patches["sar"][0])) // PATCHES
    total = TupleNTXent(variant="corrected")(*patches["optical"], *patches["sar"], groups=groups)
    ones = {"optical": torch.ones(1, 3, 32, 32), "sar": torch.ones(1, 1, 32, 32)}
    made = [(x, ones[name].expand(len(x), -1, -1, -1)) for name, pair in embeddings.predicted.items() for x in pair]
    errors = torch.stack([reconstruction_error(*pair) for pair in made], dim=1)
    total = total + (gather(errors) if gathers else errors).mean()
    return total + TupleNTXent(variant="reference")(*whole["optical"], *whole["sar"]), len(whole["sar"][0])


def gradients(net):
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def train_part(folder):
    torch.set_num_threads(1)
    net = network()
    share_layers(net, SHARE, gpu=False)
    layout = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    images, corners = views()
    mine = slice(rank() * SHARE, (rank() + 1) * SHARE)
    images = {name: tuple(x[mine] for x in pair) for name, pair in images.items()}
    torch.manual_seed(2)
    parallel = DistributedDataParallel(net)  # the mean over processes ends with it
    embeddings = parallel(images, tuple(x[mine] for x in corners), 8)
    alone, few = loss(embeddings, gathers=False)
    total, rows = loss(embeddings, gathers=True)
    total.backward()
    found = {"loss": total.detach(), "alone": alone.detach(), "rows": rows, "few": few, "layout": layout}
    torch.save({**found, "gradients": gradients(net), "buffers": dict(net.named_buffers())}, f"{folder}/{rank()}.pt")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    launch(train_part, [str(folder)], ComputeConfig(accelerator="cpu", devices=PROCESSES), 1, folder)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(PROCESSES)]


@pytest.fixture(scope="module")
def whole():
    net = network()
    torch.manual_seed(2)
    total, rows = loss(net(*views(), 8), gathers=True)
    total.backward()
    return net, total.detach(), rows


def test_the_loss_is_that_of_the_whole_batch_with_twice_the_negatives(parts, whole):
    _, total, rows = whole
    for part in parts:
        torch.testing.assert_close(part["loss"], total, rtol=1e-10, atol=0)
        # an anchor meets every row but its own place: with n = 6 gathered rows twice as many as in its own process
        assert part["rows"] == rows == TILES == PROCESSES * part["few"]
        assert abs(part["alone"] - total) > 0.1


def test_gradients_are_those_of_the_whole_batch(parts, whole):
    net = whole[0]
    for part in parts:
        assert part["gradients"].keys() == gradients(net).keys()
        for name, gradient in gradients(net).items():
            torch.testing.assert_close(part["gradients"][name], gradient, rtol=1e-8, atol=1e-10)


def test_batch_norms_hold_the_statistics_of_the_whole_batch(parts, whole):
    net = whole[0]
    for part in parts:
        assert part["layout"] == {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
        assert part["buffers"].keys() == dict(net.named_buffers()).keys()
        for name, buffer in net.named_buffers():
            torch.testing.assert_close(part["buffers"][name], buffer, rtol=1e-10, atol=1e-12)


def test_a_single_process_keeps_its_own():
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_rows({"sar": (x, x)})["sar"][0] is x


def test_shared_layers_are_the_plain_ones_in_evaluation():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5))
    plain(torch.randn(4, 2, 5, 5))
    x = torch.randn(4, 2, 5, 5)
    expected = plain.eval()(x)
    share_layers(plain, 4, gpu=False)
    assert isinstance(plain[1], SharedBatchNorm) and isinstance(plain[2], SharedDropout)
    assert torch.equal(plain.eval()(x), expected)
    assert plain[1].momentum == 0.3


def test_on_gpus_torch_shares_the_statistics():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    share_layers(net, 4, gpu=True)
    assert isinstance(net[1], nn.SyncBatchNorm) and isinstance(net[2], SharedDropout)
