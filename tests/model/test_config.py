import pytest

from dataforge.errors import ConfigError, UnknownName
from dataforge.model import ModelConfig, model_config
from dataforge.model.presets import names

GOOD = {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "ffn_size": 64}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": 30}, "30 does not divide into 4 heads"),
        ({"hidden_size": 12}, "even head size, got 3"),
        ({"num_kv_heads": 3}, "4 query heads cannot share 3"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"ffn_size": None}, "2 of 2 layers are dense"),
        ({"num_experts": 4}, "4 experts need an `expert_size`"),
        ({"num_experts": 4, "expert_size": 8, "top_k": 5}, "top_k must lie between 1 and the 4 experts"),
        ({"num_experts": 4, "expert_size": 8, "first_moe_layer": 1, "ffn_size": None}, "1 of 2 layers are dense"),
        ({"rope_theta": 1.0}, "rope_theta"),
        ({"num_experts": -1}, "must not be negative"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes, told):
    with pytest.raises(ConfigError) as error:
        ModelConfig(**{**GOOD, **changes})
    assert told in str(error.value)


def test_unknown_names_are_refused_with_the_nearest():
    for build, near in (
        (lambda: model_config("tinny", 100), "'tiny'"),
        (lambda: model_config("tiny", 100, {"expert_sise": 3}), "'expert_size'"),
        (lambda: model_config("tiny", 100, {"router": "swich"}), "'switch'"),
        (lambda: model_config("tiny", 100, {"router_options": {"balance_wait": 0.1}}), "'balance_weight'"),
    ):
        with pytest.raises(UnknownName) as error:
            build()
        assert near in str(error.value)


def test_the_vocabulary_is_the_tokenizers_to_say():
    with pytest.raises(ConfigError, match="comes from the tokenizer"):
        model_config("tiny", 100, {"vocab_size": 5})


@pytest.mark.parametrize("name", names())
def test_every_preset_is_a_sound_model(name):
    assert model_config(name, 1000).vocab_size == 1000
