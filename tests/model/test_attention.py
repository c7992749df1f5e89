import math

import pytest
import torch

from dataforge.model import Decoder, DocumentLayout, ModelConfig, layout_of_segments
from dataforge.model.attention import Attention, document_mask
from dataforge.model.rope import rotate, rotation

CONFIG = {"vocab_size": 31, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}


def a_decoder(**changes):
    settings = {**CONFIG, "num_experts": 4, "expert_size": 12, "init_std": 0.3, **changes}
    return Decoder(ModelConfig(**settings), seed=1).double().eval()


def attention_by_hand(attention, x, turn, context):
    """Every head and position by itself."""
    out = torch.zeros_like(x)
    width, groups = attention.head_size, attention.num_heads // attention.kv_heads
    for head in range(attention.num_heads):
        rows = slice(head * width, (head + 1) * width)
        shared = slice(head // groups * width, (head // groups + 1) * width)
        q = rotate((x @ attention.q_proj[rows].t())[:, None], *turn)[:, 0]
        k = rotate((x @ attention.k_proj[shared].t())[:, None], *turn)[:, 0]
        v = x @ attention.v_proj[shared].t()
        for b in range(x.shape[0]):
            for p in range(x.shape[1]):
                seen = [s for s in range(p + 1) if context[b, s] == context[b, p]]
                score = (k[b, seen] @ q[b, p]) / math.sqrt(width)
                out[b, p] += (score.softmax(0) @ v[b, seen]) @ attention.o_proj[:, rows].t()
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_equals_every_head_and_position_by_itself(kv_heads):
    attention = Attention(ModelConfig(**{**CONFIG, "num_kv_heads": kv_heads}, ffn_size=4)).double()
    attention.reset_parameters(torch.Generator().manual_seed(0), 0.3, 1.0)
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    context = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
    turn = tuple(t.double() for t in rotation(torch.arange(7).expand(2, 7), 4, 100.0))
    got = attention(x, turn, document_mask(context, torch.float64))
    torch.testing.assert_close(got, attention_by_hand(attention, x, turn, context))
    plain = attention(x, turn, None)
    torch.testing.assert_close(plain, attention_by_hand(attention, x, turn, torch.zeros_like(context)))


@pytest.mark.parametrize("restart", [True, False])
def test_a_documents_outputs_do_not_depend_on_its_neighbours_in_the_row(restart):
    model = a_decoder(rope_restart=restart)
    layout = layout_of_segments([[0, 1, 0, 5], [0, 2, 0, 6], [0, 3, 0, 6]], 1, 16)
    tokens = torch.randint(0, 31, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, :5] = (changed[0, :5] + 1) % 31
    changed[0, 11:] = (changed[0, 11:] + 1) % 31
    before, after = model(tokens, layout), model(changed, layout)
    torch.testing.assert_close(before[0, 5:11], after[0, 5:11], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[0, :5], after[0, :5])
    assert not torch.allclose(before[0, 11:], after[0, 11:])


def test_no_gradient_crosses_from_one_document_to_another():
    model = a_decoder()
    layout = layout_of_segments([[0, 1, 0, 5], [0, 2, 0, 6], [0, 3, 0, 6]], 1, 16)
    tokens = torch.arange(16)[None]  # each place has its own row of the embedding
    hidden = model.hidden(tokens, layout).hidden
    grad = torch.autograd.grad(hidden[0, 5:11].square().sum(), model.embed_tokens)[0]
    touched = grad.abs().sum(1) > 0
    assert touched[5:11].all()
    assert not touched[:5].any()
    assert not touched[11:].any()


def test_a_document_gives_the_same_wherever_it_lies_in_a_row():
    model = a_decoder()
    document = torch.randint(0, 31, (6,), generator=torch.Generator().manual_seed(3))
    results = []
    for before in (0, 4, 9):
        tokens = torch.randint(0, 31, (1, 16), generator=torch.Generator().manual_seed(before))
        tokens[0, before : before + 6] = document
        lengths = [n for n in (before, 6, 17 - before - 6) if n]
        layout = layout_of_segments([[0, i, 0, n] for i, n in enumerate(lengths)], 1, 16)
        results.append(model(tokens, layout)[0, before : before + 6])
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(results[0], results[2], rtol=1e-9, atol=1e-9)


def test_restarting_positions_changes_rounding_only():
    tokens = torch.randint(0, 31, (2, 12), generator=torch.Generator().manual_seed(0))
    layout = layout_of_segments([[0, 1, 0, 5], [0, 2, 0, 8], [1, 3, 0, 13]], 2, 12)
    # The same weights; angles are kept in float32, so agreement is that of float32.
    torch.testing.assert_close(
        a_decoder(rope_restart=True)(tokens, layout),
        a_decoder(rope_restart=False)(tokens, layout),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_row_of_one_document_needs_no_mask():
    model = a_decoder()
    tokens = torch.randint(0, 31, (2, 9))
    layout = layout_of_segments([[0, 1, 0, 10], [1, 1, 10, 10]], 2, 9)
    torch.testing.assert_close(model(tokens, layout), model(tokens))


def test_layouts_are_cut_by_rows():
    layout = DocumentLayout(torch.arange(6).reshape(3, 2), torch.zeros(3, 2, dtype=torch.int64))
    assert layout.rows(1, 3).context.tolist() == [[2, 3], [4, 5]]
