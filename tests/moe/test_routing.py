import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataforge.moe import Routing


def test_a_table_is_listed_by_token_and_then_by_choice():
    routing = Routing.from_top_k(torch.tensor([[3, 0], [1, 2]]), torch.tensor([[0.6, 0.4], [0.9, 0.1]]), num_experts=4)
    token, expert, weight = routing.pairs()
    assert token.tolist() == [0, 0, 1, 1]
    assert expert.tolist() == [3, 0, 1, 2]
    assert weight.tolist() == pytest.approx([0.6, 0.4, 0.9, 0.1])
    assert routing.full
    assert routing.problems() == []


def test_padding_gets_no_expert_and_counts_nowhere():
    valid = torch.tensor([True, False])
    routing = Routing.from_top_k(torch.tensor([[0], [0]]), torch.ones(2, 1), num_experts=2, valid=valid)
    assert routing.expert.tolist() == [[0], [-1]]
    assert routing.choices_per_expert().tolist() == [1, 0]
    assert not routing.full
    assert routing.problems() == []


@given(st.data())
def test_pairs_in_any_order_come_back_as_they_were(data):
    num_tokens, num_experts = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 5))
    every = [(t, e) for t in range(num_tokens) for e in range(num_experts)]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True) if every else st.just([]))
    weight = torch.arange(1.0, len(chosen) + 1, requires_grad=True)
    token = torch.tensor([t for t, _ in chosen], dtype=torch.int64)
    expert = torch.tensor([e for _, e in chosen], dtype=torch.int64)
    routing = Routing.from_pairs(token, expert, weight, num_tokens=num_tokens, num_experts=num_experts)
    assert routing.problems() == []
    back = {(t, e): w for t, e, w in zip(*(x.tolist() for x in routing.pairs()))}
    assert back == {pair: float(i + 1) for i, pair in enumerate(chosen)}
    assert routing.choices_per_expert().tolist() == [sum(e == k for _, e in chosen) for k in range(num_experts)]
    (routing.weight * 2).sum().backward()
    assert weight.grad.tolist() == [2.0] * len(chosen)


def test_a_dropped_choice_keeps_its_expert_and_loses_weight_and_gradient():
    weight = torch.tensor([[0.5, 0.5], [0.7, 0.3]], requires_grad=True)
    routing = Routing.from_top_k(torch.tensor([[0, 1], [0, 1]]), weight, num_experts=2)
    routing = routing.with_dropped(torch.tensor([[False, False], [True, False]]))
    assert routing.weight.tolist() == [[0.5, 0.5], [0.0, pytest.approx(0.3)]]
    assert routing.choices_per_expert().tolist() == [2, 2]
    assert routing.num_dropped().item() == 1
    assert [x.tolist() for x in routing.pairs()][:2] == [[0, 0, 1], [0, 1, 1]]
    assert routing.problems() == []
    assert not routing.full
    routing.weight.sum().backward()
    assert weight.grad.tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_broken_routings_are_told_apart():
    expert, weight = torch.tensor([[1, 1]]), torch.tensor([[0.5, -0.5]])
    twice, negative = Routing(expert, weight, 2).problems()
    assert "twice" in twice
    assert "negative" in negative
    assert "outside" in Routing(torch.tensor([[7]]), torch.ones(1, 1), 2).problems()[0]
    assert "has a weight" in Routing(torch.tensor([[-1]]), torch.ones(1, 1), 2).problems()[0]
    assert "full" in Routing(torch.tensor([[-1]]), torch.zeros(1, 1), 2, full=True).problems()[0]
    assert "dtypes" in Routing(torch.tensor([[0]], dtype=torch.int32), torch.ones(1, 1), 2).problems()[0]
