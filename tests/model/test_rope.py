import numpy as np
import torch

from dataforge.model.rope import rotate, rotation


def test_rotation_is_a_complex_product_over_halves():
    position = torch.tensor([[0, 3, 7]])
    cos, sin = rotation(position, 8, theta=100.0)
    x = torch.randn(1, 2, 3, 8)
    z = x[..., :4].numpy() + 1j * x[..., 4:].numpy()
    angle = position.numpy()[:, None, :, None] * 100.0 ** (-np.arange(0, 8, 2) / 8)
    turned = z * np.exp(1j * angle)
    expected = np.concatenate([turned.real, turned.imag], axis=-1).astype(np.float32)
    torch.testing.assert_close(rotate(x, cos, sin), torch.from_numpy(expected))


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 1, 16, dtype=torch.float64)

    def score(a, b):
        turned = [rotate(x, *rotation(torch.tensor([[p]]), 16, 10_000.0)) for x, p in ((q, a), (k, b))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(5, 2), score(905, 902), rtol=1e-4, atol=1e-4)
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


def test_half_precision_is_turned_in_float32():
    cos, sin = rotation(torch.tensor([[11]]), 4, 10_000.0)
    x = torch.randn(1, 1, 1, 4).bfloat16()
    assert torch.equal(rotate(x, cos, sin), rotate(x.float(), cos, sin).bfloat16())
