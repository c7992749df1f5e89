import pytest
import torch

from dataforge.errors import TrainingError
from dataforge.model import Decoder, ModelConfig
from dataforge.trainer import TrainConfig
from dataforge.trainer.optimizer import Optimizer


def a_model(seed=0):
    return Decoder(
        ModelConfig(vocab_size=13, hidden_size=8, num_layers=1, num_heads=2, num_experts=2, expert_size=8), seed=seed
    )


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_are_those_of_adamw_with_decay_on_matrices_alone_and_a_rate_for_embeddings():
    config = TrainConfig(lr=0.05, weight_decay=0.3, max_grad_norm=1e9, embedding_lr_ratio=4.0)
    ours, plain = a_model(), a_model()
    optimizer = Optimizer(ours, config)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in plain.layers.parameters() if p.dim() > 1], "weight_decay": 0.3},
            {"params": [p for p in plain.parameters() if p.dim() == 1], "weight_decay": 0.0},
            {"params": [plain.embed_tokens], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    for step in range(4):
        for model in (ours, plain):
            set_gradients(model, step)
        optimizer.step(lr=0.05 / (step + 1))
        for group, ratio in zip(reference.param_groups, (1.0, 1.0, 4.0)):
            group["lr"] = ratio * 0.05 / (step + 1)
        reference.step()
    for got, expected in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(got, expected)
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    model = a_model()
    optimizer = Optimizer(model, TrainConfig(max_grad_norm=0.5))
    set_gradients(model, 0)
    before = torch.cat([p.grad.flatten() for p in model.parameters()])
    norm = optimizer.clip()
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(norm, before.norm())
    torch.testing.assert_close(after, before * 0.5 / before.norm(), rtol=1e-4, atol=1e-8)


def test_a_state_put_back_goes_on_bit_for_bit():
    first, second = a_model(), a_model()
    whole, part = (Optimizer(model, TrainConfig()) for model in (first, second))
    for step in range(6):
        set_gradients(first, step)
        whole.step(0.01)
    for step in range(3):
        set_gradients(second, step)
        part.step(0.01)
    third = a_model(seed=9)
    third.load_state_dict(second.state_dict())
    resumed = Optimizer(third, TrainConfig())
    resumed.load({name: value.clone() for name, value in part.tensors().items()})
    for step in range(3, 6):
        set_gradients(third, step)
        resumed.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters()))
    assert all(torch.equal(value, resumed.tensors()[name]) for name, value in whole.tensors().items())


def test_the_state_of_another_model_is_refused():
    model = a_model()
    optimizer = Optimizer(model, TrainConfig())
    set_gradients(model, 0)
    optimizer.step(0.01)
    state = optimizer.tensors()
    state.pop("exp_avg.norm.weight")
    with pytest.raises(TrainingError, match=r"exp_avg\.norm\.weight differs"):
        optimizer.load(state)
