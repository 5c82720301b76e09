"""Two processes that share their embeddings train as one that sees the whole batch."""

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import TupleNTXent
from tmcnet.model.tmcnet import TMCNet
from tmcnet.train.gather import gather_rows, processes

PROCESSES, TILES, PATCHES = 2, 6, 3
MODEL = ModelConfig(width=8, aspp_channels=16, decoder_channels=16, embedding=8)


def network():
    """Norms stand still (evaluation mode): those of a process see its own images only, and syncing takes GPUs."""
    torch.manual_seed(0)
    return TMCNet(3, 1, MODEL, MethodConfig()).eval()


def views():
    random = torch.Generator().manual_seed(1)
    optical, sar = (tuple(torch.randn(2, TILES, bands, 32, 32, generator=random)) for bands in (3, 1))
    corners = tuple(torch.randint(0, 24, (2, TILES, PATCHES, 2), generator=random))
    return optical, sar, corners


def loss(embeddings, gathers):
    """Both levels, with the loss that keeps apart and the one that mixes the places of a tile."""
    whole, patches = (gather_rows(x) if gathers else x for x in (embeddings.whole, embeddings.patches))
    groups = torch.arange(len(patches[0]) // PATCHES).repeat_interleave(PATCHES)
    total = TupleNTXent(variant="corrected")(*patches, groups=groups) + TupleNTXent(variant="reference")(*whole)
    return total, len(whole[0])


def gradients(net):
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def train_part(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    net = network()
    share = TILES // PROCESSES
    optical, sar, corners = (tuple(x[rank * share :][:share] for x in pair) for pair in views())
    parallel = DistributedDataParallel(net)
    embeddings = parallel(optical, sar, corners, 8)
    alone, few = loss(embeddings, gathers=False)
    total, rows = loss(embeddings, gathers=True)
    total.backward()
    found = {"loss": total.detach(), "alone": alone.detach(), "rows": rows, "few": few, "processes": processes()}
    torch.save({**found, "gradients": gradients(net)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_loss_and_gradients_of_one_with_the_whole_batch(tmp_path):
    multiprocessing.spawn(train_part, (str(tmp_path),), PROCESSES)
    net = network()
    whole, rows = loss(net(*views(), 8), gathers=True)
    whole.backward()
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["processes"] == PROCESSES
        # an anchor meets every row but its own place: with n = 6 gathered rows twice as many as in its own process
        assert found["rows"] == rows == PROCESSES * found["few"]
        torch.testing.assert_close(found["loss"], whole.detach(), rtol=1e-5, atol=1e-5)
        assert abs(found["alone"] - whole.detach()) > 0.1
        for name, gradient in gradients(net).items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_single_process_keeps_its_own():
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_rows([x, x])[0] is x and processes() == 1
