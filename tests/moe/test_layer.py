import pytest
import torch

from dataforge.errors import ConfigError, UnknownName
from dataforge.moe import MoEConfig, MoELayer, StepContext, routers


def layer_of(router="top_k", options=None, *, experts=4, top_k=2, hidden=8, seed=0):
    sizes = {"hidden_size": hidden, "expert_size": 12, "num_experts": experts, "top_k": top_k}
    return MoELayer(MoEConfig(**sizes, router=router, router_options=options or {}), seed=seed)


def test_losses_come_back_weighted_and_metrics_hold_them_unweighted():
    layer = layer_of(options={"balance_weight": 0.5, "z_weight": 0.25})
    _, losses, metrics = layer(torch.randn(20, 8))
    assert losses["load_balance"].item() == pytest.approx(0.5 * metrics["load_balance"].item())
    assert losses["router_z"].item() == pytest.approx(0.25 * metrics["router_z"].item())
    assert losses["load_balance"].requires_grad
    assert not metrics["load_balance"].requires_grad
    assert metrics["tokens_per_expert"].sum().item() == 40


def test_nothing_is_kept_on_the_module_between_calls():
    layer = layer_of("switch", top_k=1).train()
    before = {id(module): dict(module.__dict__) for module in layer.modules()}
    layer(torch.randn(20, 8))
    assert before == {id(module): dict(module.__dict__) for module in layer.modules()}


def test_padding_comes_out_as_zero_and_changes_nothing_else():
    layer = layer_of().eval()
    x = torch.randn(10, 8)
    valid = torch.ones(10, dtype=torch.bool)
    valid[[2, 7]] = False
    y, _, metrics = layer(x, valid=valid)
    assert torch.equal(y[~valid], torch.zeros(2, 8))
    torch.testing.assert_close(y[valid], layer(x[valid])[0])
    assert metrics["tokens_per_expert"].sum().item() == 16


def test_one_expert_is_a_dense_layer():
    layer = layer_of(experts=1, top_k=1)
    x = torch.randn(5, 8)
    gate, up = (x @ layer.experts.gate_up_proj[0].t()).chunk(2, dim=1)
    torch.testing.assert_close(layer(x)[0], (torch.nn.functional.silu(gate) * up) @ layer.experts.down_proj[0].t())


@pytest.mark.parametrize("router", routers.names())
def test_the_whole_layer_passes_gradcheck_in_float64(router):
    layer = layer_of(router, top_k=None, experts=3, hidden=4).double().eval()
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        y, losses, _ = torch.func.functional_call(layer, dict(zip(names, parameters)), (x,))
        return (y, *losses.values())

    # The choices are piecewise constant; the seed keeps every logit away from a tie.
    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_initial_weights_follow_from_the_seed_and_leave_global_randomness_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second, other = layer_of(seed=3), layer_of(seed=3), layer_of(seed=4)
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
        assert not torch.equal(parameter, other.get_parameter(name))


def test_config_errors_come_before_anything_is_allocated():
    huge = {"hidden_size": 10**9, "expert_size": 10**9, "num_experts": 10**6}
    with pytest.raises(UnknownName, match="topk") as error:
        MoEConfig(**huge, router="topk")
    assert "'top_k'" in str(error.value)
    with pytest.raises(UnknownName) as error:
        MoEConfig(**huge, router="switch", router_options={"capacity_facto": 1.0})
    assert "capacity_factor" in str(error.value)
    with pytest.raises(ConfigError, match="between 1 and"):
        MoEConfig(hidden_size=4, expert_size=4, num_experts=2, top_k=3)
    with pytest.raises(ConfigError, match="jitter"):
        MoEConfig(**huge, router="switch", router_options={"jitter": 1.5})
    MoEConfig(**huge)


def test_a_tensor_of_the_wrong_shape_is_refused_with_both_shapes():
    with pytest.raises(ConfigError, match=r"width 8 .* \(2, 3, 8\)"):
        layer_of()(torch.zeros(2, 3, 8))


def test_replay_forces_choices_and_reproduces_the_output():
    layer = layer_of()
    x = torch.randn(7, 8)
    y, _, _ = layer(x)
    choices = layer.router(routers.RouteInput(hidden=x)).expert
    assert torch.equal(layer(x, replay=choices)[0], y)
    other = torch.stack([torch.tensor([0, 1])] * 7)
    assert layer(x, replay=other)[2]["tokens_per_expert"].tolist() == [7, 7, 0, 0]


def test_switch_in_training_draws_by_step_and_microbatch():
    layer = layer_of("switch", {"jitter": 0.3}, top_k=1).train()
    x = torch.randn(30, 8)
    moments = [StepContext(seed=1, step=s, microbatch=m) for s, m in ((0, 0), (0, 0), (0, 1), (1, 0))]
    outputs = [layer(x, context=moment)[0] for moment in moments]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[3])
