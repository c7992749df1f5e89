"""The model on a CUDA device. Marked `gpu`: where there is none these are not run."""

import pytest
import torch

from dataforge.model import Decoder, layout_of_segments, model_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DEVICE = "cuda"


def a_batch():
    tokens = torch.randint(0, 500, (2, 129), generator=torch.Generator().manual_seed(0))
    layout = layout_of_segments([[0, 1, 0, 50], [0, 2, 0, 79], [1, 3, 0, 1], [1, 4, 0, 128]], 2, 128)
    return tokens, layout


@pytest.mark.parametrize("router", ["top_k", "switch"])
def test_float32_on_a_gpu_equals_the_cpu(router):
    tokens, layout = a_batch()
    losses = []
    for device in ("cpu", DEVICE):
        model = Decoder(model_config("tiny", 500, {"router": router})).to(device).eval()
        nll, _ = model.loss(tokens[:, :-1].to(device), tokens[:, 1:].to(device), layout.to(device))
        losses.append(nll.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("router", ["top_k", "switch"])
def test_bfloat16_under_autocast_stays_close_and_its_gradients_are_finite(router):
    tokens, layout = a_batch()
    model = Decoder(model_config("tiny", 500, {"router": router})).to(DEVICE)
    arguments = (tokens[:, :-1].to(DEVICE), tokens[:, 1:].to(DEVICE), layout.to(DEVICE))
    full = model.eval().loss(*arguments)[0].item()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        nll, passed = model.loss(*arguments)
    assert nll.item() == pytest.approx(full, rel=1e-2)
    (nll + sum(passed.losses.values())).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_on_a_gpu_no_document_sees_its_neighbours():
    tokens, layout = a_batch()
    model = Decoder(model_config("tiny", 500)).to(DEVICE).eval()
    changed = tokens.clone()
    changed[0, :50] = (changed[0, :50] + 1) % 500
    before, after = (model(ids[:, :-1].to(DEVICE), layout.to(DEVICE)) for ids in (tokens, changed))
    torch.testing.assert_close(before[0, 50:], after[0, 50:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before[0, :50], after[0, :50], atol=1e-2)
