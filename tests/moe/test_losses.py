import pytest
import torch

from dataforge.moe.losses import load_balance, router_z


def test_balance_loss_is_one_when_all_is_uniform_and_e_when_all_goes_to_one():
    uniform = torch.full((12, 4), 0.25)
    assert load_balance(uniform, torch.tensor([3, 3, 3, 3])).item() == 1.0
    collapsed = torch.eye(4)[torch.zeros(12, dtype=torch.int64)]
    assert load_balance(collapsed, torch.tensor([12, 0, 0, 0])).item() == 4.0


def test_balance_loss_has_its_gradient_through_the_probabilities_alone():
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    choices = torch.tensor([4, 1, 1])
    grad = torch.autograd.grad(load_balance(logits.softmax(1), choices), logits)[0]
    p, f = logits.softmax(1).detach(), choices.double() / 6
    expected = 3 / 6 * p * (f - (p * f).sum(1, keepdim=True))  # closed form, peers/moe-systems 2.2
    torch.testing.assert_close(grad, expected)


def test_z_loss_is_the_mean_squared_logsumexp():
    logits = torch.randn(5, 4, dtype=torch.float64)
    assert router_z(logits).item() == pytest.approx((logits.exp().sum(1).log() ** 2).mean().item())


def test_padding_takes_no_part():
    logits = torch.randn(6, 3)
    valid = torch.tensor([True, True, False, True, False, True])
    choices = torch.tensor([2, 1, 1])
    for whole, part in (
        (load_balance(logits.softmax(1), choices, valid), load_balance(logits[valid].softmax(1), choices)),
        (router_z(logits, valid), router_z(logits[valid])),
    ):
        assert whole.item() == pytest.approx(part.item(), rel=1e-6)


def test_no_tokens_cost_nothing():
    assert load_balance(torch.zeros(0, 3), torch.zeros(3, dtype=torch.int64)).item() == 0.0
    assert router_z(torch.zeros(0, 3)).item() == 0.0
    assert router_z(torch.randn(2, 3), torch.zeros(2, dtype=torch.bool)).item() == 0.0
