import pytest
import torch
from torch.nn import functional as F

from dataforge.model import Decoder, ModelConfig, layout_of_segments, model_config
from dataforge.moe import MoELayer, StepContext

CONFIG = {
    "vocab_size": 37,
    "hidden_size": 16,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ffn_size": 24,
    "num_experts": 4,
    "expert_size": 12,
    "top_k": 2,
    "init_std": 0.2,
}


def a_decoder(seed=0, **changes):
    return Decoder(ModelConfig(**{**CONFIG, **changes}), seed=seed)


@pytest.mark.parametrize("router", ["top_k", "switch"])
def test_no_output_depends_on_a_later_token(router):
    options = {"eval_capacity_factor": 4.0} if router == "switch" else {}
    model = a_decoder(router=router, router_options=options).double().eval()
    tokens = torch.randint(0, 37, (1, 10))
    for place in range(1, 10):
        changed = tokens.clone()
        changed[0, place:] = (changed[0, place:] + 5) % 37
        torch.testing.assert_close(model(tokens)[:, :place], model(changed)[:, :place], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(model(tokens)[:, place:], model(changed)[:, place:])


def test_layers_are_dense_or_have_experts_as_the_config_says():
    kinds = [isinstance(b.mlp, MoELayer) for b in a_decoder(num_layers=5, first_moe_layer=1, moe_every=2).layers]
    assert kinds == [False, True, False, True, False]
    assert not any(isinstance(m, MoELayer) for m in a_decoder(num_experts=0).modules())


def test_loss_is_the_cross_entropy_of_the_logits_and_router_losses_come_beside_it():
    model = a_decoder().double()
    tokens, labels = torch.randint(0, 37, (2, 9)), torch.randint(0, 37, (2, 9))
    layout = layout_of_segments([[0, 1, 0, 4], [0, 2, 0, 6], [1, 3, 0, 10]], 2, 9)
    nll, passed = model.loss(tokens, labels, layout)
    logits = model(tokens, layout)
    torch.testing.assert_close(nll, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
    assert set(passed.losses) == {"load_balance", "router_z"}
    assert passed.metrics["tokens_per_expert"].shape == (3, 4)
    assert passed.metrics["tokens_per_expert"].sum(1).tolist() == [36, 36, 36]


def test_router_losses_add_up_over_the_layers():
    model = a_decoder(router_options={"balance_weight": 1.0, "z_weight": 0.0})
    _, passed = model.loss(torch.randint(0, 37, (2, 9)), torch.randint(0, 37, (2, 9)))
    torch.testing.assert_close(passed.losses["load_balance"], passed.metrics["load_balance"].sum())


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_whole_and_as_one_token_uses_them(tied):
    model = a_decoder(tie_embeddings=tied, first_moe_layer=1)
    attention, norms = 16 * 16 + 2 * 8 * 16 + 16 * 16, 2 * 16
    dense, expert, gate = 3 * 16 * 24, 3 * 16 * 12, 4 * 16
    embedding = 37 * 16
    expected = 3 * (attention + norms) + dense + 2 * (4 * expert + gate) + 16 + embedding * (1 if tied else 2)
    assert model.num_parameters() == expected
    assert model.num_parameters(active=True) == expected - 2 * 2 * expert - (0 if tied else embedding - 16)


def test_initial_weights_follow_from_config_and_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, other = a_decoder(3), a_decoder(3), a_decoder(4)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        if value.dim() > 1:
            assert not torch.equal(value, other.state_dict()[name]), name
    blocks = [b.self_attn.q_proj for b in first.layers]
    assert not torch.equal(blocks[0], blocks[1])


def test_weights_into_the_residual_stream_start_smaller():
    model = a_decoder(hidden_size=64, expert_size=64)
    scale = (2 * 3) ** -0.5
    for block in model.layers:
        assert block.self_attn.o_proj.std().item() == pytest.approx(0.2 * scale, rel=0.05)
        assert block.mlp.experts.down_proj.std().item() == pytest.approx(0.2 * scale, rel=0.05)
        assert block.mlp.experts.gate_up_proj.std().item() == pytest.approx(0.2, rel=0.05)


def test_under_autocast_the_model_stays_close_to_float32():
    model = a_decoder().eval()
    tokens = torch.randint(0, 37, (2, 12))
    layout = layout_of_segments([[0, 1, 0, 4], [0, 2, 0, 9], [1, 3, 0, 13]], 2, 12)
    full, _ = model.loss(tokens, tokens, layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = model.loss(tokens, tokens, layout)
    assert half.dtype == torch.float32
    assert half.item() != full.item()
    assert half.item() == pytest.approx(full.item(), rel=0.02)


def test_padding_reaches_no_expert():
    model = a_decoder().eval()
    tokens = torch.randint(0, 37, (2, 8))
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[1, 3:] = False
    passed = model.hidden(tokens, valid=valid)
    assert passed.metrics["tokens_per_expert"].sum(1).tolist() == [22, 22, 22]


def test_switch_draws_differ_by_step_in_the_whole_model():
    model = a_decoder(router="switch", top_k=1, router_options={"jitter": 0.4}).train()
    tokens = torch.randint(0, 37, (2, 8))
    losses = [model.loss(tokens, tokens, context=StepContext(seed=1, step=step))[0].item() for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_the_decoder_works_in_float64_end_to_end():
    model = a_decoder(num_layers=1, tie_embeddings=False).double()
    tokens = torch.randint(0, 37, (1, 4))
    nll, passed = model.loss(tokens, tokens)
    assert nll.dtype == torch.float64
    (nll + sum(passed.losses.values())).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in model.parameters())


def test_presets_have_the_sizes_they_state():
    tiny = Decoder(model_config("tiny", 8192))
    assert tiny.num_parameters() == 2_823_296
    with torch.device("meta"):
        small = Decoder(model_config("small", 32_768))
    assert round(small.num_parameters() / 1e6) == 114
    assert round(small.num_parameters(active=True) / 1e6) == 48
