"""What holds for every registered router, whatever its paper. A new router is covered on arrival."""

import pytest
import torch

from dataforge.moe import MoEConfig, MoELayer, RouteInput, StepContext, routers

HIDDEN, EXPERTS, VOCABULARY = 12, 6, 50


def a_layer(name, **changes):
    config = MoEConfig(hidden_size=HIDDEN, expert_size=8, num_experts=EXPERTS, router=name, **changes)
    return MoELayer(config, layer=1, seed=7)


def an_input(num_tokens, *, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_tokens, HIDDEN, generator=generator)
    token_ids = torch.randint(0, VOCABULARY, (num_tokens,), generator=generator)
    return RouteInput(hidden=hidden, token_ids=token_ids, layer=1, seed=5, step=3, microbatch=2, **changes)


@pytest.mark.parametrize("name", routers.names())
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 33])
def test_every_router_gives_a_sound_routing_and_places_each_token_or_counts_it(name, training, num_tokens):
    router = a_layer(name).train(training).router
    given = an_input(num_tokens, training=training)
    routing = router.route(given)
    assert routing.problems() == []
    assert routing.expert.shape[0] == num_tokens
    assert routing.num_experts == EXPERTS
    planned = router.plan(given, routing)
    assert planned.problems() == []
    assert (planned.kept.sum() + planned.num_dropped()).item() == (planned.expert >= 0).sum().item()
    if num_tokens:
        assert (planned.kept.any(1) | (planned.expert >= 0).any(1)).all()
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in routing.losses.values())
    assert set(router.loss_weights) == set(routing.losses)


@pytest.mark.parametrize("name", routers.names())
@pytest.mark.parametrize("training", [True, False])
def test_every_router_leaves_padding_alone(name, training):
    router = a_layer(name).train(training).router
    valid = torch.arange(20) % 3 != 1
    given = an_input(20, training=training, valid=valid)
    planned = router.plan(given, router.route(given))
    assert planned.problems() == []
    assert (planned.expert[~valid] == -1).all()
    assert (planned.weight[~valid] == 0).all()
    assert (planned.expert[valid] >= 0).any(1).all()


@pytest.mark.parametrize("name", routers.names())
def test_every_router_is_deterministic_in_evaluation(name):
    router = a_layer(name).eval().router
    given = an_input(40)
    first, second = (router.plan(given, router.route(given)) for _ in range(2))
    assert torch.equal(first.expert, second.expert)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("name", routers.names())
def test_every_router_not_bound_to_its_batch_routes_each_token_alike_in_any_company(name):
    layer = a_layer(name).eval()
    given = an_input(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = RouteInput(hidden=given.hidden[order], token_ids=given.token_ids[order], layer=1)
    plain, moved = layer.router.route(given), layer.router.route(shuffled)
    if not layer.router.batch_dependent:
        plain, moved = layer.router.plan(given, plain), layer.router.plan(shuffled, moved)
    elif layer.router.plan(given, plain) is plain:
        pytest.skip("its choices themselves depend on the batch")
    assert torch.equal(plain.expert[order], moved.expert)
    torch.testing.assert_close(plain.weight[order], moved.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", routers.names())
def test_every_router_draws_alike_when_activations_are_recomputed(name):
    router = a_layer(name).train().router
    first = router.route(an_input(40, training=True))
    buffers = {key: value.clone() for key, value in router.state_dict().items()}
    second = router.route(an_input(40, training=True, recompute=True))
    assert torch.equal(first.expert, second.expert)
    assert torch.equal(first.weight, second.weight)
    assert all(torch.equal(value, buffers[key]) for key, value in router.state_dict().items())


@pytest.mark.parametrize("name", routers.names())
def test_every_router_sends_gradient_to_its_parameters_and_its_input(name):
    layer = a_layer(name).train()
    given = an_input(40)
    hidden = given.hidden.requires_grad_()
    y, losses, _ = layer(hidden, given.token_ids, context=StepContext(seed=5))
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    grads = torch.autograd.grad((y * upstream).sum(), [hidden, *layer.router.parameters()], retain_graph=True)
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in grads)
    grads = torch.autograd.grad(sum(losses.values()), [hidden, *layer.router.parameters()])
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in grads)


@pytest.mark.parametrize("name", routers.names())
def test_identical_experts_and_weights_that_sum_to_one_equal_that_expert(name):
    layer = a_layer(name).eval()
    if not layer.router.normalised:
        layer = a_layer(name, top_k=EXPERTS).eval()  # every expert: weights that are probabilities then sum to 1
    with torch.no_grad():
        for parameter in layer.experts.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    given = an_input(30)
    y, _, metrics = layer(given.hidden, given.token_ids)
    assert metrics["dropped"].item() == 0
    gate, up = (given.hidden @ layer.experts.gate_up_proj[0].t()).chunk(2, dim=1)
    one = (torch.nn.functional.silu(gate) * up) @ layer.experts.down_proj[0].t()
    torch.testing.assert_close(y, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", routers.names())
def test_every_router_comes_back_from_its_state(name):
    first, second = a_layer(name), MoELayer(a_layer(name).config, layer=1, seed=8)
    given = an_input(25)
    before = first.eval().router.route(given)
    assert not torch.equal(before.weight, second.eval().router.route(given).weight)
    second.load_state_dict(first.state_dict())
    after = second.router.route(given)
    assert torch.equal(before.expert, after.expert)
    assert torch.equal(before.weight, after.weight)


@pytest.mark.parametrize("name", routers.names())
def test_a_run_resumed_after_some_steps_equals_an_undisturbed_one(name):
    def train(layer, steps):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        outputs = []
        for step in steps:
            given = an_input(30, seed=step)
            y, losses, _ = layer(given.hidden, given.token_ids, context=StepContext(seed=5, step=step))
            outputs.append(y.detach())
            (y.square().mean() + sum(losses.values())).backward()
            optimizer.step()
            optimizer.zero_grad()
            layer.router.on_step_end()
        return outputs

    whole = a_layer(name).train()
    expected = train(whole, range(6))
    part = a_layer(name).train()
    train(part, range(3))
    resumed = MoELayer(part.config, layer=1, seed=99).train()
    resumed.load_state_dict(part.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(train(resumed, range(3, 6)), expected[3:]))


@pytest.mark.parametrize("name", routers.names())
def test_every_router_follows_replayed_choices(name):
    router = a_layer(name).eval().router
    routing = router.route(an_input(25))
    again = router.route(an_input(25, replay=routing.expert))
    assert torch.equal(again.expert, routing.expert)
    assert torch.equal(again.weight, routing.weight)
