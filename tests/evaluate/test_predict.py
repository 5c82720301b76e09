import resource

import pytest
import torch
from torch import nn

from tmcnet.config import ComputeConfig
from tmcnet.dataset.loading import Tile
from tmcnet.errors import InputError
from tmcnet.evaluate.trained import predict_tiles, probabilities
from tmcnet.memory import keep_freed_memory
from tmcnet.model.device import choose_device


class Local(nn.Module):
    """A network that looks at each pixel and its upper neighbour, with dropout that must stay off."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 3, (2, 1), padding=(1, 0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, images):
        return self.dropout(self.layer(torch.cat([images["optical"], images["sar"]], 1))[..., :-1, :])


def tile(name, height, width):
    generator = torch.Generator().manual_seed(int(name))
    optical, sar = torch.randn(2, 1, height, width, generator=generator)
    return Tile(name, {"optical": optical, "sar": sar}, None)


def test_tiles_of_different_sizes_come_back_in_order():
    torch.manual_seed(0)
    network = Local().train()
    tiles = [tile(str(i), *size) for i, size in enumerate([(4, 5), (4, 5), (4, 5), (6, 5), (4, 5)])]
    found = list(predict_tiles(network, iter(tiles), batch_size=2))
    assert [t.name for t, _ in found] == ["0", "1", "2", "3", "4"]
    assert network.training
    network.eval()
    for t, p in found:
        with torch.no_grad():
            expected = network({name: image[None] for name, image in t.images.items()}).softmax(1)[0]
        assert torch.allclose(torch.from_numpy(p), expected, atol=1e-6)


def copies(image, test_time):
    """Every copy of an image N x C x H x W, written out."""
    flips = [(), (3,), (2,), (2, 3)]
    turned = [torch.rot90(image, k, (2, 3)) for k in range(4)]
    return {
        "none": [image],
        "flips": [image.flip(axes) for axes in flips],
        "rotations": turned,
        "all": [*turned, *(x.flip(3) for x in turned)],
    }[test_time]


@pytest.mark.parametrize(("test_time", "count"), [("none", 1), ("flips", 4), ("rotations", 4), ("all", 8)])
def test_every_copy_is_seen_once_and_turned_back(test_time, count):
    """Pixels numbered one by one: a network that hands its input on must get every copy, and put each pixel back."""

    class Recorder(Local):
        def forward(self, images):
            optical = images["optical"]
            seen.append(optical)
            return torch.cat([optical, -optical], 1)

    seen = []
    optical = torch.linspace(-1, 1, 24).reshape(1, 1, 4, 6)
    found = probabilities(Recorder(), {"optical": optical, "sar": optical}, test_time)
    expected = {(tuple(x.shape), tuple(x.flatten().tolist())) for x in copies(optical, test_time)}
    assert {(tuple(x.shape), tuple(x.flatten().tolist())) for x in seen} == expected
    assert len(seen) == len(expected) == count
    assert torch.allclose(found, torch.cat([optical, -optical], 1).softmax(1), atol=1e-6)


@pytest.mark.parametrize("test_time", ["flips", "rotations", "all"])
def test_the_mean_over_copies_turns_with_the_image(test_time):
    """Averaged over a whole group of copies, prediction and mirroring change places."""
    torch.manual_seed(0)
    network = Local().eval()
    images = dict(zip(("optical", "sar"), torch.randn(2, 1, 1, 4, 6), strict=True))
    whole = probabilities(network, images, test_time)
    turned = {name: image.flip(2, 3) for name, image in images.items()}
    half_turn = probabilities(network, turned, test_time)
    assert torch.allclose(half_turn.flip(2, 3), whole, atol=1e-6)
    assert torch.allclose(whole.sum(1), torch.ones(1, 4, 6))
    assert not torch.allclose(whole, probabilities(network, images), atol=1e-3)


def test_a_network_of_buffers_alone_is_found_on_its_device():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, images):
            return torch.cat([images["optical"], self.scale * images["sar"]], 1)

    images = dict.fromkeys(("optical", "sar"), torch.ones(1, 1, 2, 2))
    assert probabilities(Fixed(), images).shape == (1, 2, 2, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there():
    assert choose_device(ComputeConfig()).type == "cpu"
    with pytest.raises(InputError, match=r"compute\.accelerator"):
        choose_device(ComputeConfig(accelerator="gpu"))


def test_freed_memory_is_kept_for_the_next_layer():
    network = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)))
    keep_freed_memory()

    def cleared():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.no_grad():
            network(torch.zeros(1, 16, 768, 768))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(cleared() for _ in range(4)) < 1000, "pages; tens of thousands without"
