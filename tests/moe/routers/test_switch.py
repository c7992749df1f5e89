"""The claims of papers/routers: Switch, arXiv:2101.03961."""

import math

import pytest
import torch

from dataforge.moe import MoEConfig, MoELayer, RouteInput, StepContext, routers


def switch(experts=4, hidden=8, top_k=None, seed=0, **options):
    router = routers.make("switch", {"hidden_size": hidden, "num_experts": experts, "top_k": top_k, "options": options})
    router.reset_parameters(torch.Generator().manual_seed(seed))
    return router


def layer(experts=4, top_k=None, **options):
    config = MoEConfig(
        hidden_size=8, expert_size=8, num_experts=experts, top_k=top_k, router="switch", router_options=options
    )
    return MoELayer(config)


def test_balance_loss_is_one_when_uniform_and_e_when_collapsed():
    router = switch(experts=4, hidden=4)
    with torch.no_grad():
        router.gate.weight.copy_(40 * torch.eye(4))
    spread = router.route(RouteInput(hidden=torch.eye(4).repeat(3, 1)))  # three tokens to each expert, surely
    assert spread.losses["load_balance"].item() == pytest.approx(1.0, abs=1e-5)
    collapsed = router.route(RouteInput(hidden=torch.eye(4)[:1].repeat(12, 1)))
    assert collapsed.losses["load_balance"].item() == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_capacity_factor_of_e_over_k_drops_nothing(top_k):
    router = switch(experts=4, top_k=top_k, capacity_factor=4 / top_k).train()
    given = RouteInput(hidden=torch.ones(10, 8), training=True)  # all want the same experts
    assert router.plan(given, router.route(given)).num_dropped().item() == 0


def test_no_expert_gets_more_than_its_capacity_and_drops_are_counted():
    router = switch(experts=4, capacity_factor=1.0, jitter=0.0).train()
    given = RouteInput(hidden=torch.ones(10, 8), training=True)
    planned = router.plan(given, router.route(given))
    assert planned.kept.sum().item() == math.ceil(10 / 4)
    assert planned.num_dropped().item() == 10 - math.ceil(10 / 4)
    assert planned.kept[:3].all()  # in position order


def test_dropped_rows_are_exactly_zero_before_the_residual():
    moe = layer(capacity_factor=0.5, jitter=0.0).train()
    x = torch.randn(40, 8)
    given = RouteInput(hidden=x, training=True)
    planned = moe.router.plan(given, moe.router.route(given))
    lost = ~planned.kept[:, 0]
    y, _, metrics = moe(x)
    assert 0 < lost.sum() == metrics["dropped"] == metrics["tokens_without_expert"]
    assert torch.equal(y[lost], torch.zeros_like(y[lost]))
    assert (y[~lost] != 0).any(dim=1).all()


def test_evaluation_twice_is_identical_and_has_no_jitter():
    moe = layer(jitter=0.5).eval()
    x = torch.randn(12, 8)
    first = moe(x, context=StepContext(step=1))[0]
    assert torch.equal(first, moe(x, context=StepContext(step=2))[0])


def test_the_router_learns_from_the_output_only_through_the_gate_value():
    moe = layer(balance_weight=0.0, z_weight=0.0).eval()
    x = torch.randn(12, 8)
    moe(x)[0].sum().backward()
    assert moe.router.gate.weight.grad.abs().sum() > 0
    moe.zero_grad()
    routing = moe.router.route(RouteInput(hidden=x))
    ones = type(routing).from_top_k(routing.expert, torch.ones_like(routing.weight), num_experts=4)
    moe.experts(x, ones).sum().backward()
    assert moe.router.gate.weight.grad is None


def test_bfloat16_input_and_its_float32_copy_choose_alike():
    router = switch(experts=16, hidden=32)
    x = torch.randn(500, 32).bfloat16()
    half, full = router.route(RouteInput(hidden=x)), router.route(RouteInput(hidden=x.float()))
    assert torch.equal(half.expert, full.expert)
    assert torch.equal(half.weight, full.weight)
    assert half.weight.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(router.route(RouteInput(hidden=x)).weight, full.weight)


def test_jitter_multiplies_the_input_within_its_bounds():
    router = switch(hidden=8, jitter=0.1)
    given = RouteInput(hidden=torch.ones(4000, 8), training=True, seed=1)
    x = router._jittered(given)
    assert x.min() >= 0.9
    assert x.max() < 1.1
    assert abs(x.mean().item() - 1) < 0.002
    assert torch.equal(x, router._jittered(given))
    assert not torch.equal(x, router._jittered(RouteInput(hidden=given.hidden, training=True, seed=1, rank=1)))


def test_initial_weights_have_scale_s_and_stay_within_two_sigma():
    sigma = math.sqrt(0.1 / 512)
    weight = switch(experts=64, hidden=512).gate.weight
    assert weight.abs().max() <= 2 * sigma
    assert weight.std().item() == pytest.approx(0.88 * sigma, rel=0.02)  # a normal cut at two sigma has 0.88 sigma


def test_evaluation_has_its_own_capacity():
    router = switch(experts=4, capacity_factor=1.0, eval_capacity_factor=4.0)
    given = RouteInput(hidden=torch.ones(8, 8), training=False)
    assert router.plan(given, router.route(given)).num_dropped().item() == 0
