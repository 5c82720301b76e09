"""The error of predicted values: of known cells only, each compared with the mean around its centre."""

import torch

from tmcnet.loss import reconstruction_error


def error_of_zero(target, row, column):
    """Error of the prediction 0 in a cell, by band."""
    rows, columns = (slice(max(4 * k - 2, 0), 4 * k + 3) for k in (row, column))
    error = target[:, rows, columns].mean((1, 2)).abs()
    return torch.where(error < 0.1, error.square() / 0.2, error - 0.05)


def test_known_cells_are_compared_with_the_mean_around_their_centre():
    target = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target[1, :, :16] = torch.nan  # cell 4 still sees rows 14 and 15
    target[2] = torch.nan
    predicted = torch.zeros(3, 3, 8, 8, requires_grad=True)
    errors = reconstruction_error(predicted, target)
    means = [
        torch.stack([error_of_zero(image, row, column) for row in rows for column in range(8)]).mean()
        for image, rows in zip(target, (range(8), range(5, 8)), strict=False)
    ]
    torch.testing.assert_close(errors, torch.stack([*means, torch.tensor(0.0)]))
    errors.sum().backward()
    assert (predicted.grad[1, :, 5:] != 0).all()
    assert (predicted.grad[1, :, :5] == 0).all() and (predicted.grad[2] == 0).all()
