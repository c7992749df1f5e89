import pytest
import torch
from torch.nn import functional as F

import dataforge.moe.grouped_linear as grouped_linear_module
from dataforge.moe import Experts, Routing
from dataforge.moe.experts import swiglu_gate
from dataforge.moe.grouped_linear import grouped_linear


def loop_over_experts(experts, x, routing):
    """What the layer means: every kept pair by itself, the weight on the output."""
    y = torch.zeros_like(x)
    for token, expert, weight in zip(*routing.pairs()):
        gate, up = F.linear(x[token], experts.gate_up_proj[expert]).chunk(2)
        y = y.index_add(0, token[None], (weight * F.linear(F.silu(gate) * up, experts.down_proj[expert]))[None])
    return y


def some_routing(kind, num_tokens, num_experts, width, weight):
    generator = torch.Generator().manual_seed(5)
    expert = torch.rand(num_tokens, num_experts, generator=generator).argsort(dim=1)[:, :width].contiguous()
    routing = Routing.from_top_k(expert, weight, num_experts=num_experts)
    if kind == "full":
        return routing
    if kind == "one expert":
        return Routing.from_top_k(torch.zeros_like(expert[:, :1]), weight[:, :1], num_experts=num_experts)
    if kind == "dropped":
        return routing.with_dropped(torch.rand(num_tokens, width, generator=generator) < 0.5)
    token, pair_expert, pair_weight = routing.with_dropped(expert == 1).pairs()  # an expert without rows
    return Routing.from_pairs(token, pair_expert, pair_weight, num_tokens=num_tokens, num_experts=num_experts)


@pytest.mark.parametrize("kind", ["full", "one expert", "dropped", "ragged"])
@pytest.mark.parametrize(("tokens", "num_experts", "width"), [(1, 3, 2), (17, 5, 3), (40, 4, 1)])
def test_grouped_experts_equal_a_loop_over_pairs_forward_and_in_all_gradients(kind, tokens, num_experts, width):
    experts = Experts(num_experts, 6, 10).double()
    experts.reset_parameters(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.rand(tokens, width, dtype=torch.float64, generator=generator, requires_grad=True)
    upstream = torch.randn(tokens, 6, dtype=torch.float64, generator=generator)
    leaves = [x, weight, *experts.parameters()]
    routing = some_routing(kind, tokens, num_experts, width, weight)
    fast = experts(x, routing)
    slow = loop_over_experts(experts, x, routing)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(y, leaves, upstream, retain_graph=True, materialize_grads=True) for y in (fast, slow)]
    for got, expected in zip(*grads):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_experts_pass_gradcheck():
    experts = Experts(3, 4, 5).double()
    experts.reset_parameters(torch.Generator().manual_seed(0))
    expert = torch.tensor([[0, 2], [2, -1], [0, 1], [-1, -1]])
    x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight, gate_up, down):
        values = torch.where(expert >= 0, weight, 0.0)
        return torch.func.functional_call(
            experts, {"gate_up_proj": gate_up, "down_proj": down}, (x, Routing(expert, values, 3))
        )

    inputs = (x, weight, *(p.detach().requires_grad_() for p in experts.parameters()))
    assert torch.autograd.gradcheck(run, inputs)


def test_the_activation_passes_gradcheck():
    hidden = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swiglu_gate, (hidden, weight))


@pytest.mark.parametrize("ends", [[0, 0, 0], [4, 4, 4], [0, 1, 4], [2, 3, 4]])
def test_grouped_linear_passes_gradcheck_with_empty_experts(ends):
    x = torch.randn(ends[-1], 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    ends_E = torch.tensor(ends, dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, ends_E), (x, weight))


def test_two_passes_give_the_same_bits():
    experts = Experts(4, 16, 24)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(50, 16, requires_grad=True)
    weight = torch.rand(50, 2)
    results = []
    for _ in range(2):
        y = experts(x, some_routing("full", 50, 4, 2, weight))
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *experts.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_no_tokens_give_no_rows_and_zero_gradients():
    experts = Experts(2, 4, 4)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    nothing = Routing.from_top_k(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1), num_experts=2)
    y = experts(torch.zeros(0, 4), nothing)
    assert y.shape == (0, 4)
    y.sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in experts.parameters())


def test_under_autocast_the_experts_run_in_bfloat16_and_give_back_what_came():
    experts = Experts(2, 16, 16)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.randn(9, 16)
    routing = some_routing("full", 9, 2, 2, torch.full((9, 2), 0.5))
    full = experts(x, routing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = experts(x, routing)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("kind", ["full", "one expert", "dropped", "ragged"])
def test_the_operator_that_gpus_use_gives_what_the_loop_gives(kind, monkeypatch):
    # `grouped_mm` has a slow kernel for CPUs too, so its path can be held to the loop without a GPU.
    experts = Experts(5, 16, 24)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(17, 16, generator=generator, requires_grad=True)
    weight = torch.rand(17, 3, generator=generator, requires_grad=True)
    leaves = [x, weight, *experts.parameters()]
    results = []
    for there in (False, True):
        monkeypatch.setattr(grouped_linear_module, "_has_grouped_mm", lambda x, w, there=there: there)
        y = experts(x, some_routing(kind, 17, 5, 3, weight))
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves, materialize_grads=True)])
    for loop, operator in zip(*results):
        torch.testing.assert_close(operator, loop, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["full", "one expert", "dropped", "ragged"])
def test_on_a_gpu_bfloat16_experts_stay_close_to_float64_and_repeat_their_bits(kind):
    experts = Experts(5, 64, 96)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(170, 64, generator=generator), torch.rand(170, 3, generator=generator)

    def run(dtype, device):
        there = Experts(5, 64, 96).to(device, dtype)
        there.load_state_dict(experts.state_dict())
        leaves = [x.to(device, dtype).requires_grad_(), *there.parameters()]
        scale = weight.to(device, torch.promote_types(dtype, torch.float32)).requires_grad_()
        routing = some_routing(kind, 170, 5, 3, weight)
        table = Routing(
            routing.expert.to(device),
            torch.where(routing.kept.to(device), scale[:, : routing.expert.shape[1]], 0.0),
            5,
            dropped=None if routing.dropped is None else routing.dropped.to(device),
            full=routing.full,
        )
        y = there(leaves[0], table)
        return [y, *torch.autograd.grad(y.double().square().sum(), [*leaves, scale], materialize_grads=True)]

    exact = run(torch.float64, "cpu")
    first, second = run(torch.bfloat16, "cuda"), run(torch.bfloat16, "cuda")
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    for got, wanted in zip(first, exact):
        assert (got.cpu().double() - wanted).norm() <= 2e-2 * wanted.norm()
