import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataforge.errors import NothingToDo
from dataforge.model import Decoder, ModelConfig
from dataforge.trainer import HeldOut, evaluate
from dataforge.trainer.evaluate import bits_with

VOCABULARY, EOS, BOS = 19, 0, 1


def a_model(router="top_k", **options):
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_experts=4,
        expert_size=12,
        router=router,
        router_options=options,
        init_std=0.3,
    )
    return Decoder(config, seed=2).double()


MODEL = a_model()


def bits_by_hand(model, ids, row_length, bos, eos):
    """One document, one window, one prediction after another."""

    def cost(seen, label):
        return -model(torch.tensor([seen]))[0, -1].log_softmax(0)[label].item() / math.log(2)

    total, ids = 0.0, list(ids)
    if not ids:
        return total
    if bos is None:
        total += math.log2(VOCABULARY) if eos is None else cost([eos], ids[0])
    inputs, labels = ids[:-1], ids[1:]
    for start in range(0, len(labels), row_length):
        for place in range(start, min(start + row_length, len(labels))):
            total += cost(inputs[start : place + 1], labels[place])
    return total


documents = st.lists(st.lists(st.integers(2, VOCABULARY - 1), max_size=13), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(documents, st.integers(1, 6), st.integers(1, 3), st.sampled_from(["eos", "bos and eos", "neither"]))
def test_bits_equal_each_prediction_by_itself(texts, row_length, rows_at_once, kind):
    bos, eos = (BOS if kind.startswith("bos") else None), (None if kind == "neither" else EOS)
    held = []
    for text in texts:
        ids = [*([bos] if bos is not None else []), *text, *([eos] if eos is not None else [])]
        held.append((np.array(ids, dtype=np.uint16), 3 * len(text) + 1))
    found = evaluate(MODEL, HeldOut(held, bos_id=bos, eos_id=eos), row_length=row_length, rows_at_once=rows_at_once)
    expected = sum(bits_by_hand(MODEL, ids.tolist(), row_length, bos, eos) for ids, _ in held)
    assert found.bits == pytest.approx(expected, rel=1e-6)
    assert found.bytes == sum(size for _, size in held)
    assert found.documents == len(held)
    assert found.tokens == sum(len(ids) - (bos is not None) for ids, _ in held)
    assert found.bits_per_byte == pytest.approx(found.bits / found.bytes)


def test_every_token_of_a_document_is_paid_for_once():
    uniform = lambda context, label: np.full(len(label), math.log2(VOCABULARY))  # noqa: E731
    ids = np.array([4, 5, 6, EOS])
    for bos, eos, paid in ((None, EOS, 4), (None, None, 4), (BOS, EOS, 3)):
        found = bits_with(uniform, HeldOut([(ids, 9)], bos_id=bos, eos_id=eos), VOCABULARY)
        assert found.tokens == paid
        assert found.bits == pytest.approx(paid * math.log2(VOCABULARY))


def test_padding_takes_no_seat_from_a_token():
    model = a_model("switch", eval_capacity_factor=1.0)
    held = HeldOut([(np.array([5, 6, 7, EOS]), 4)], eos_id=EOS)
    few = evaluate(model, held, row_length=8, rows_at_once=1)
    many = evaluate(model, held, row_length=50, rows_at_once=1)
    assert few.bits == pytest.approx(many.bits, rel=1e-9)


def test_the_model_is_left_in_the_mode_it_was_in():
    for training in (True, False):
        model = a_model().train(training)
        evaluate(model, HeldOut([(np.array([3, 4, EOS]), 2)], eos_id=EOS), row_length=4)
        assert model.training is training


def test_no_text_is_an_error_that_says_so():
    for held in ([], [(np.array([EOS]), 0)]):
        with pytest.raises(NothingToDo, match=f"{len(held)} held-out documents have no text"):
            evaluate(MODEL, HeldOut(held, eos_id=EOS), row_length=4)


def test_thinning_keeps_evenly_spaced_documents():
    held = HeldOut([(np.array([i]), i) for i in range(10)])
    assert [size for _, size in held.thinned(4).documents] == [0, 2, 5, 7]
    assert held.thinned(None) is held
    assert held.thinned(10) is held
