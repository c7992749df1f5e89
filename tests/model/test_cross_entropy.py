import pytest
import torch
from torch.nn import functional as F

from dataforge.model import cross_entropy
from dataforge.model.cross_entropy import linear_cross_entropy, token_nll


@pytest.fixture(autouse=True)
def pieces_of_sixteen(monkeypatch):
    """Small pieces, so that short inputs have several."""
    monkeypatch.setattr(cross_entropy, "_PIECE_BYTES", 1)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 50])
def test_value_and_gradients_equal_those_of_all_logits_at_once(tokens):
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(23, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(0, 23, (tokens,), generator=generator)
    got = linear_cross_entropy(hidden, weight, labels)
    expected = F.cross_entropy(hidden @ weight.t(), labels, reduction="sum")
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(0.3 * got, [hidden, weight]), torch.autograd.grad(0.3 * expected, [hidden, weight])
    ):
        torch.testing.assert_close(a, b)


def test_gradients_pass_gradcheck():
    hidden = torch.randn(18, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, (18,))
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, labels), (hidden, weight))


def test_logits_far_from_zero_neither_overflow_nor_vanish():
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 0]))
    assert loss.item() == 2000.0
    assert torch.isfinite(torch.autograd.grad(loss, hidden)[0]).all()


def test_each_tokens_cost_sums_to_the_loss():
    hidden, weight, labels = torch.randn(40, 6), torch.randn(23, 6), torch.randint(0, 23, (40,))
    nll = token_nll(hidden, weight, labels)
    torch.testing.assert_close(nll, F.cross_entropy(hidden @ weight.t(), labels, reduction="none"))
    torch.testing.assert_close(nll.sum(), linear_cross_entropy(hidden, weight, labels))


def test_under_autocast_the_sum_is_float32_and_gradients_keep_their_dtype():
    hidden = torch.randn(40, 16, requires_grad=True)
    weight = torch.randn(23, 16, requires_grad=True)
    labels = torch.randint(0, 23, (40,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.dtype == torch.float32
    full = linear_cross_entropy(hidden, weight, labels)
    assert abs(loss - full) < 0.01 * full
    for a, b in zip(torch.autograd.grad(loss, [hidden, weight]), torch.autograd.grad(full, [hidden, weight])):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()
