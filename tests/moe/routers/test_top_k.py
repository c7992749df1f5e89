import pytest
import torch

from dataforge.moe import RouteInput, routers
from dataforge.moe.routers.gate import choose


def top_k(experts=6, k=2, **options):
    router = routers.make("top_k", {"hidden_size": 8, "num_experts": experts, "top_k": k, "options": options})
    router.reset_parameters(torch.Generator().manual_seed(0))
    return router


def test_equal_scores_go_to_the_lowest_expert():
    scores = torch.randint(0, 3, (300, 9)).float()
    expected = [sorted(range(9), key=lambda e, line=line: (-line[e], e))[:4] for line in scores.tolist()]
    assert choose(scores, 4).tolist() == expected


def test_normalised_softmax_is_a_softmax_over_the_chosen_logits():
    router, x = top_k(k=3), torch.randn(20, 8)
    routing = router.route(RouteInput(hidden=x))
    chosen = router.gate(x).gather(1, routing.expert).softmax(1)
    torch.testing.assert_close(routing.weight, chosen)


def test_weights_that_are_not_normalised_are_the_probabilities():
    router, x = top_k(normalise=False), torch.randn(20, 8)
    routing = router.route(RouteInput(hidden=x))
    torch.testing.assert_close(routing.weight, router.gate(x).softmax(1).topk(2).values)
    assert not router.normalised


def test_sigmoid_scores_are_each_by_themselves_then_normalised_and_scaled():
    router, x = top_k(score="sigmoid", scaling_factor=2.5), torch.randn(20, 8)
    routing = router.route(RouteInput(hidden=x))
    scores = router.gate(x).sigmoid().gather(1, routing.expert)
    torch.testing.assert_close(routing.weight, 2.5 * scores / scores.sum(1, keepdim=True))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_balance_loss_is_one_for_uniform_routing(score):
    router = top_k(experts=4, k=1, score=score)
    with torch.no_grad():
        router.gate.weight.zero_()
    forced = torch.arange(4).repeat(5)[:, None]
    losses = router.route(RouteInput(hidden=torch.randn(20, 8), replay=forced)).losses
    assert losses["load_balance"].item() == pytest.approx(1.0)
