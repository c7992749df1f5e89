import shutil

import pytest
import torch

from dataforge.errors import ChecksumMismatch, FormatError, TrainingError
from dataforge.trainer import checkpoint as module
from dataforge.trainer.checkpoint import Checkpoint, CheckpointStore, refuse_other_config

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
OPTIMIZER = {"exp_avg.a": torch.ones(2, 3)}


def save(store, step):
    state = {"step": step, "config": {"lr": 0.1}, "loader": {"cursor": 4 * step}}
    return store.save(weights=WEIGHTS, optimizer=OPTIMIZER, model_config={"vocab_size": 7}, state=state)


def test_what_is_saved_comes_back(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=2)
    assert store.last() is None
    save(store, 5)
    found = store.last()
    assert found.step == 5
    assert found.state["loader"] == {"cursor": 20}
    assert found.model_config() == {"vocab_size": 7}
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in found.weights().items())
    assert torch.equal(found.optimizer()["exp_avg.a"], OPTIMIZER["exp_avg.a"])


def test_the_same_state_makes_the_same_bytes(tmp_path):
    folders = [save(CheckpointStore(tmp_path / name, keep_last=1), 3).folder for name in ("a", "b")]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()


def test_only_the_last_few_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for step in (3, 20, 100):
        save(store, step)
    assert store.steps() == [20, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000100"]


class PowerCut(BaseException):
    pass


def test_a_cut_at_any_write_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    """Stop before each call that touches the disk, one after the other: what is called `step-...` always opens."""
    calls = {"left": 0}

    def cutting(function):
        def run(*args, **kwargs):
            if calls["left"] == 0:
                raise PowerCut
            calls["left"] -= 1
            return function(*args, **kwargs)

        return run

    folder = tmp_path / "run"
    save(CheckpointStore(folder, keep_last=1), 1)
    shutil.copytree(folder, tmp_path / "before")
    for name in ("save_file", "_write_json", "_sync"):
        monkeypatch.setattr(module, name, cutting(getattr(module, name)))
    monkeypatch.setattr(module.Path, "rename", cutting(module.Path.rename))
    monkeypatch.setattr(module.shutil, "rmtree", cutting(shutil.rmtree))
    seen = set()
    for cut in range(40):
        calls["left"] = 10**9
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before", folder)
        store = CheckpointStore(folder, keep_last=1)
        calls["left"] = cut
        try:
            save(store, 2)
            done = True
        except PowerCut:
            done = False
        calls["left"] = 10**9
        steps = store.steps()
        assert steps in ([1], [1, 2], [2])
        seen.add(tuple(steps))
        for step in steps:
            assert Checkpoint.open(store.path(step)).weights().keys() == WEIGHTS.keys()
        store.sweep()
        assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:08d}" for step in steps]
        if done:
            break
    assert done
    assert seen == {(1,), (1, 2), (2,)}


@pytest.mark.parametrize("name", [module.WEIGHTS, module.OPTIMIZER])
def test_a_changed_byte_is_found(tmp_path, name):
    found = save(CheckpointStore(tmp_path, keep_last=1), 1)
    path = found.folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match="the checkpoint says"):
        found.weights() if name == module.WEIGHTS else found.optimizer()


def test_a_folder_without_a_checkpoint_is_told_so(tmp_path):
    with pytest.raises(FormatError, match="no checkpoint here"):
        Checkpoint.open(tmp_path)


def test_another_config_is_refused_with_the_setting_that_differs(tmp_path):
    found = save(CheckpointStore(tmp_path, keep_last=1), 9)
    refuse_other_config(found, {"lr": 0.1})
    with pytest.raises(TrainingError, match=r"lr = 0.1, this run has 0.2"):
        refuse_other_config(found, {"lr": 0.2})
