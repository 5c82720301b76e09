import pytest
import torch
from torch import nn

from tmcnet.config import ComputeConfig
from tmcnet.dataset.loading import Tile
from tmcnet.errors import InputError
from tmcnet.evaluate.predict import choose_device, predict_tiles, probabilities


class Local(nn.Module):
    """A network that looks at each pixel and its upper neighbour, with dropout that must stay off."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 3, (2, 1), padding=(1, 0))
        self.dropout = nn.Dropout(0.9)

    def forward(self, optical, sar):
        return self.dropout(self.layer(torch.cat([optical, sar], 1))[..., :-1, :])


def tile(name, height, width):
    generator = torch.Generator().manual_seed(int(name))
    optical, sar = torch.randn(2, 1, height, width, generator=generator)
    return Tile(name, optical, sar, None)


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
            expected = network(t.optical[None], t.sar[None]).softmax(1)[0]
        assert torch.allclose(torch.from_numpy(p), expected, atol=1e-6)


def test_rotations_are_turned_back():
    torch.manual_seed(0)
    network = Local().eval()
    optical, sar = torch.randn(2, 1, 1, 4, 6)
    found = probabilities(network, optical, sar, rotations=True)
    with torch.no_grad():
        turned = [
            torch.rot90(network(*(torch.rot90(x, k, (2, 3)) for x in (optical, sar))).softmax(1), -k, (2, 3))
            for k in range(4)
        ]
    assert torch.allclose(found, sum(turned) / 4, atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(1, 4, 6))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there():
    assert choose_device(ComputeConfig()).type == "cpu"
    with pytest.raises(InputError, match=r"compute\.accelerator"):
        choose_device(ComputeConfig(accelerator="gpu"))
