import torch
from hypothesis import given
from hypothesis import strategies as st

from dataforge.moe import Routing
from dataforge.moe.permute import combine, expand, row_order, weights_of_rows


@st.composite
def routings(draw):
    """Full tables, tables with holes, dropped choices, tokens and experts with nothing."""
    num_experts, num_tokens = draw(st.integers(1, 6)), draw(st.integers(0, 12))
    width = draw(st.integers(1, num_experts))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    expert = torch.rand(num_tokens, num_experts, generator=generator).argsort(dim=1)[:, :width].contiguous()
    weight = torch.rand(num_tokens, width, generator=generator, dtype=torch.float64) + 0.1
    kind = draw(st.sampled_from(["full", "holes", "dropped"]))
    if kind == "full":
        return Routing.from_top_k(expert, weight, num_experts=num_experts)
    holes = torch.rand(num_tokens, width, generator=generator) < 0.4
    if kind == "holes":
        return Routing(expert.masked_fill(holes, -1), weight.masked_fill(holes, 0.0), num_experts)
    return Routing.from_top_k(expert, weight, num_experts=num_experts).with_dropped(holes)


@given(routings())
def test_rows_lie_by_expert_then_token_then_choice(routing):
    order = row_order(routing)
    token, expert, _ = routing.pairs()
    place = torch.argsort(expert, stable=True)
    assert torch.equal(order.token_N, token[place])
    counts = torch.bincount(expert, minlength=routing.num_experts)
    assert torch.equal(order.ends_E, counts.cumsum(0).to(torch.int32))
    kept = order.row_TK >= 0
    assert torch.equal(kept, routing.kept)
    assert torch.equal(order.pair_N[order.row_TK[kept]], torch.nonzero(kept.reshape(-1))[:, 0])


@given(routings())
def test_there_and_back_gives_each_token_once_for_every_expert_it_has(routing):
    order = row_order(routing)
    x = torch.randint(-1000, 1000, (routing.expert.shape[0], 3)).double()
    assert torch.equal(combine(expand(x, order), order), x * routing.kept.sum(1, keepdim=True))


@given(routings())
def test_each_movement_is_the_gradient_of_the_other(routing):
    order = row_order(routing)
    x = torch.randn(routing.expert.shape[0], 3, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(order.num_rows, 3, dtype=torch.float64, requires_grad=True)
    dense = torch.zeros(order.num_rows, x.shape[0], dtype=torch.float64)
    dense[torch.arange(order.num_rows), order.token_N] = 1.0
    upstream = torch.randn(order.num_rows, 3, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(expand(x, order), x, upstream)[0], combine(upstream, order))
    torch.testing.assert_close(expand(x, order), dense @ x)
    torch.testing.assert_close(combine(rows, order), dense.t() @ rows)
    back = torch.randn(x.shape[0], 3, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(combine(rows, order), rows, back)[0], expand(back, order))


@given(routings())
def test_weights_reach_their_rows_and_gradients_their_pairs(routing):
    order = row_order(routing)
    weight = routing.weight.clone().requires_grad_()
    rows = weights_of_rows(weight, order)
    assert torch.equal(rows, weight.reshape(-1)[order.pair_N])
    upstream = torch.randn(order.num_rows, dtype=torch.float64)
    grad = torch.autograd.grad(rows, weight, upstream)[0]
    expected = torch.zeros(weight.numel(), dtype=torch.float64).index_add(0, order.pair_N, upstream)
    assert torch.equal(grad, expected.reshape(weight.shape))


def test_a_row_that_is_not_a_number_reaches_only_its_token():
    routing = Routing(torch.tensor([[0], [-1], [0]]), torch.tensor([[1.0], [0.0], [1.0]]), 1)
    rows = torch.tensor([[float("nan")], [2.0]])
    assert combine(rows, row_order(routing)).nan_to_num(-1.0).tolist() == [[-1.0], [0.0], [2.0]]


def test_bfloat16_rows_are_summed_in_float32():
    routing = Routing.from_top_k(torch.arange(3)[None], torch.ones(1, 3), num_experts=3)
    rows = torch.tensor([[256.0], [1.0], [1.0]], dtype=torch.bfloat16)  # 256 + 1 is 256 in bfloat16
    assert combine(rows, row_order(routing)).item() == 258.0
