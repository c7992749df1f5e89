import json
import math

import numpy as np
import pytest
import torch

from dataforge.errors import ConfigError, MixedEnvironment, PastTheEnd, StreamError, TrainingError, UnknownName
from dataforge.trainer import Checkpoint, FitConfig, TrainConfig, fit, loop
from dataforge.trainer.metrics import TIME_FIELDS, read_metrics


def told(path):
    """A metrics file without what two runs may differ in."""
    return [{k: v for k, v in row.items() if k not in TIME_FIELDS} for row in read_metrics(path)]


def test_the_loss_falls_below_what_single_tokens_tell(toy, tmp_path):
    result = toy.toy_fit(tmp_path, steps=150, eval_every=0)
    rows = read_metrics(result.metrics)
    tokens = np.concatenate(toy.toy_documents(500))
    share = np.bincount(tokens) / len(tokens)
    unigram = -sum(p * math.log(p) for p in share if p > 0)
    first, last = (np.mean([row["loss"] for row in part]) for part in (rows[:5], rows[-20:]))
    assert first > unigram
    assert last < 0.6 * unigram
    assert result.evaluation.bits_per_token * math.log(2) < 0.65 * unigram


def test_metrics_tell_every_step_once_with_loads_and_drops(toy, tmp_path):
    result = toy.toy_fit(tmp_path, steps=12, model={**toy.TOY_MODEL, "router": "switch"})
    rows = read_metrics(result.metrics)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["tokens"] for row in rows] == [64 * step for step in range(1, 13)]
    assert [row["step"] for row in rows if "held_out" in row] == [10, 12]
    for row in rows:
        assert [sum(load) for load in row["tokens_per_expert"]] == [64, 64]
        assert set(row["aux_losses"]) == {"load_balance", "router_z"}
        assert len(row["dropped"]) == len(row["max_violation"]) == 2
        assert row["tokens_per_s"] > 0
        assert row["grad_norm"] > 0
    assert any(sum(row["dropped"]) > 0 for row in rows)


def test_passes_of_a_step_add_up_to_the_whole_batch(toy, tmp_path):
    # No balance loss: it is taken pass by pass, which is another loss.
    model = {**toy.TOY_MODEL, "router_options": {"balance_weight": 0.0, "z_weight": 0.0}}
    whole = toy.toy_fit(tmp_path / "whole", steps=6, model=model)
    split = toy.toy_fit(tmp_path / "split", steps=6, model=model, micro_batch=3)  # 3 rows, then 1
    for a, b in zip(told(whole.metrics), told(split.metrics), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["tokens_per_expert"] == b["tokens_per_expert"]


@pytest.mark.parametrize("router", ["top_k", "switch"])
def test_a_run_in_two_halves_equals_an_undisturbed_one_bit_for_bit(toy, tmp_path, router, monkeypatch):
    model = {**toy.TOY_MODEL, "router": router}
    whole = toy.toy_fit(tmp_path / "whole", steps=14, model=model)

    class Killed(BaseException):
        pass

    step = loop._Run._train_step

    def dying(self, batch):
        if self.step == 11:
            raise Killed
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_train_step", dying)
        with pytest.raises(Killed):
            toy.toy_fit(tmp_path / "halves", steps=14, model=model)
    assert len(read_metrics(tmp_path / "halves" / "metrics.jsonl")) == 10
    resumed = toy.toy_fit(tmp_path / "halves", steps=14, model=model)
    assert told(resumed.metrics) == told(whole.metrics)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for path in whole.checkpoint.folder.iterdir():
        assert path.read_bytes() == (resumed.checkpoint.folder / path.name).read_bytes(), path.name


def test_how_often_checkpoints_are_made_changes_nothing(toy, tmp_path):
    often = toy.toy_fit(tmp_path / "often", steps=9, checkpoint_every=1, keep_last=3)
    once = toy.toy_fit(tmp_path / "once", steps=9, checkpoint_every=0)
    assert told(often.metrics) == told(once.metrics)
    assert sorted(p.name for p in (tmp_path / "often" / "checkpoints").iterdir()) == [
        "step-00000007",
        "step-00000008",
        "step-00000009",
    ]


def test_a_finished_run_comes_back_without_training(toy, tmp_path, monkeypatch):
    first = toy.toy_fit(tmp_path, steps=5)
    monkeypatch.setattr(loop._Run, "_train_step", None)
    again = toy.toy_fit(tmp_path, steps=5)
    assert again.evaluation == first.evaluation
    assert torch.equal(first.model.embed_tokens, again.model.embed_tokens)


def test_a_trained_model_is_rebuilt_from_its_checkpoint_alone(toy, tmp_path):
    from dataforge.model import Decoder, ModelConfig

    result = toy.toy_fit(tmp_path, steps=5)
    found = Checkpoint.open(result.checkpoint.folder)
    model = Decoder(ModelConfig(**found.model_config()))
    model.load_state_dict(found.weights())
    tokens = torch.randint(0, 24, (2, 7))
    assert torch.equal(model.eval()(tokens), result.model.eval()(tokens))


def test_every_row_is_trained_on_once_when_no_number_of_steps_is_given(toy, tmp_path):
    loader = toy.ToyLoader(toy.toy_documents(40), global_batch=4)
    rows = loader.num_rows
    assert rows % 4
    found = read_metrics(toy.toy_fit(tmp_path, steps=None, loader=loader, held_out=False).metrics)
    assert sum(row["rows"] for row in found) == rows
    assert found[-1]["rows"] == rows % 4


def test_a_poisoned_batch_is_named_and_leaves_the_weights_alone(toy, tmp_path):
    class Poisoned(toy.ToyLoader):
        """Step 6 brings a token whose embedding is not a number."""

        def __next__(self):
            batch = super().__next__()
            if batch.cursor == 24:
                batch.token_ids[:] = 23
            return batch

    documents = [ids[ids != 23] for ids in toy.toy_documents(300)]
    loader = Poisoned(documents)

    class Model(loop.Decoder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            with torch.no_grad():
                self.embed_tokens[23] = math.nan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Decoder", Model)
        with pytest.raises(TrainingError) as error:
            toy.toy_fit(tmp_path, loader=loader, held_out=False, model={**toy.TOY_MODEL, "tie_embeddings": False})
    at = str(error.value)
    assert "step 6" in at
    assert "rows 20 to 23" in at
    expected = sorted({int(d) for d in toy.ToyLoader(documents).segments_of(range(20, 24))[:, 1]})
    assert f"documents {', '.join(map(str, expected[:16]))}" in at
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert loop.CheckpointStore(tmp_path / "checkpoints", 2).steps() == [4]


def test_too_few_rows_are_an_error_before_the_model_is_made(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Decoder", None)
    loader = toy.ToyLoader(toy.toy_documents(20))
    with pytest.raises(PastTheEnd, match=f"the rows last for {len(loader)}"):
        toy.toy_fit(tmp_path, steps=10_000, loader=loader)


def test_rows_that_end_before_their_time_are_an_error(toy, tmp_path):
    class Short(toy.ToyLoader):
        def __len__(self):
            return super().__len__() + 5

    with pytest.raises(StreamError, match="the rows ended after step"):
        toy.toy_fit(tmp_path, steps=None, loader=Short(toy.toy_documents(20)), held_out=False)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"preset": "tinny"}, UnknownName, "'tiny'"),
        ({"model": {"router": "swich"}}, UnknownName, "'switch'"),
        ({"model": {"num_heads": 5}}, ConfigError, "5 heads"),
        ({"micro_batch": 9}, ConfigError, "more than the global batch of 8"),
        ({"steps": 0}, ConfigError, "steps must be at least 1"),
        ({"lr": 0.0}, ConfigError, "lr must be above 0"),
        ({"precision": "fp8"}, ConfigError, "float32"),
        ({"beta2": 1.0}, ConfigError, "beta2"),
        ({"final_lr_ratio": 1.5}, ConfigError, "final_lr_ratio"),
        ({"eval_every": -1}, ConfigError, "eval_every"),
    ],
)
def test_settings_are_checked_when_they_are_made(settings, error, told):
    with pytest.raises(error) as caught:
        TrainConfig(**settings)
    assert told in str(caught.value)


def test_a_run_without_rows_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="no rows to train on"):
        fit(FitConfig(train=TrainConfig(), folder=tmp_path))


def test_a_device_that_is_not_there_is_refused(toy, tmp_path):
    loader = toy.ToyLoader(toy.toy_documents(9))
    for device in ("cuda", "gpu9"):
        if device == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(ConfigError, match="device"):
            fit(FitConfig(train=TrainConfig(), folder=tmp_path, device=device), loader=loader)


def test_a_folder_of_another_run_is_refused_with_the_setting_that_differs(toy, tmp_path):
    toy.toy_fit(tmp_path, steps=4)
    with pytest.raises(TrainingError, match=r"lr = 0\.01, this run has 0\.02"):
        toy.toy_fit(tmp_path, steps=4, lr=0.02)


def test_another_environment_is_refused_unless_allowed_and_then_recorded(toy, tmp_path, monkeypatch):
    toy.toy_fit(tmp_path, steps=6, checkpoint_every=3)
    for path in (tmp_path / "checkpoints").glob("step-00000006"):
        path.rename(tmp_path / "gone")
    elsewhere = {"device": "other", "torch": "9", "threads": 1}
    monkeypatch.setattr(loop, "environment", lambda device: elsewhere)
    with pytest.raises(MixedEnvironment, match="step 3 was made with"):
        toy.toy_fit(tmp_path, steps=6, checkpoint_every=3)
    result = toy.toy_fit(tmp_path, steps=6, checkpoint_every=3, allow_mixed=True)
    assert result.checkpoint.state["environments"][1:] == [elsewhere]


def test_progress_hears_of_every_step_and_of_the_end(toy, tmp_path):
    heard = []

    class Listener:
        def begin(self, num_steps, done):
            heard.append((num_steps, done))

        def step(self, row):
            heard.append(row["step"])

        def end(self):
            heard.append("end")

    config = FitConfig(train=TrainConfig(steps=3, model=toy.TOY_MODEL, global_batch=4), folder=tmp_path, device="cpu")
    fit(config, loader=toy.ToyLoader(toy.toy_documents(50)), progress=Listener())
    assert heard == [(3, 0), 1, 2, 3, "end"]


def test_the_state_is_plain_json_that_names_the_loaders_place(toy, tmp_path):
    result = toy.toy_fit(tmp_path, steps=7)
    state = json.loads((result.checkpoint.folder / "state.json").read_text())
    assert state["step"] == 7
    assert state["loader"] == {"cursor": 28}
    assert state["config"]["lr"] == 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_training_runs_in_bfloat16_and_learns(toy, tmp_path):
    config = FitConfig(
        train=TrainConfig(steps=100, model=toy.TOY_MODEL, global_batch=4, lr=1e-2, warmup_steps=3),
        folder=tmp_path,
        device="cuda",
    )
    rows = read_metrics(fit(config, loader=toy.ToyLoader(toy.toy_documents(300))).metrics)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
