import pytest
import torch
from torch import nn

from tmcnet.train.loop import moving_average


def steps_of(network, count):
    """Change weights and statistics as training would, and give each state."""
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
        network.train()(torch.randn(8, 3, generator=random))
        yield {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_weights_and_statistics_are_averaged_by_hand(network):
    average = moving_average(network, 0.4)
    expected = None
    for done, state in enumerate(steps_of(network, 6)):
        decay = min(0.4, (1 + done) / (10 + done)) if done else 0.0  # the first step is copied
        expected = {n: decay * expected[n] + (1 - decay) * state[n] if done else state[n] for n in state}
        average.update_parameters(network)
    found = average.module.state_dict()
    for name in set(found) - {"1.num_batches_tracked"}:
        assert torch.allclose(found[name], expected[name], atol=1e-6), name
        assert not torch.allclose(found[name], state[name], atol=1e-3), name
    assert found["1.num_batches_tracked"] == 6, "counts are copied"


def test_the_start_is_forgotten_in_short_schedules(network):
    average = moving_average(network, 0.999)
    with torch.no_grad():
        network[0].weight.fill_(100.0)  # the random start, and what the first step leaves
    average.update_parameters(network)
    with torch.no_grad():
        network[0].weight.fill_(1.0)
    for _ in range(30):
        average.update_parameters(network)
    assert average.module[0].weight.max() < 1.001


def test_a_saved_average_goes_on_bit_for_bit(network):
    whole, broken = moving_average(network, 0.9), moving_average(network, 0.9)
    for done, _ in enumerate(steps_of(network, 6)):
        if done == 3:
            state, broken = broken.state_dict(), moving_average(network, 0.9)
            broken.load_state_dict(state)
        whole.update_parameters(network)
        broken.update_parameters(network)
    first, second = whole.state_dict(), broken.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
