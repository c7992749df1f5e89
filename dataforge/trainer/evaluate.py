"""Bits per byte on held-out documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dataforge.errors import NothingToDo
from dataforge.model import Decoder, DocumentLayout
from dataforge.model.cross_entropy import token_nll

# B rows  L positions


@dataclass(frozen=True)
class HeldOut:
    """Documents to evaluate on, as a tokenizer of this vocabulary gave them."""

    documents: Sequence[tuple[np.ndarray, int]]
    """(token ids, beginning and end of text included; UTF-8 bytes of the text). Read anew for each evaluation."""
    bos_id: int | None = None
    """The id before every document, if there is one."""
    eos_id: int | None = None
    """The id after every document, if there is one."""

    def thinned(self, most: int | None) -> HeldOut:
        """At most so many of the documents, evenly spaced; all of them for None.

        >>> HeldOut(documents=[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).thinned(2).documents[1]
        ('c', 1)
        """
        if most is None or most >= len(self.documents):
            return self
        return replace(self, documents=_Some(self.documents, [i * len(self.documents) // most for i in range(most)]))


class _Some(Sequence[tuple[np.ndarray, int]]):
    """Some items of a sequence, still read one by one."""

    def __init__(self, items: Sequence[tuple[np.ndarray, int]], places: list[int]) -> None:
        self._items, self._places = items, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._items[self._places[index]]


@dataclass(frozen=True)
class Evaluation:
    """What it costs to write documents down with a model."""

    bits: float
    bytes: int
    tokens: int
    """Tokens that were paid for."""
    documents: int

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.bytes

    @property
    def bits_per_token(self) -> float:
        return self.bits / max(1, self.tokens)


@dataclass(frozen=True)
class Predictions:
    """What has to be predicted in a document, from what: two arrays side by side."""

    context: np.ndarray
    """int64: the token right before each label."""
    label: np.ndarray
    """int64."""
    alone: bool
    """The first context is the end of the text before: it sees, and is seen by, nothing of this document."""
    unpredicted: int
    """Tokens with nothing before them, which cost log2(vocabulary) bits each: 1 without beginning and end of text."""


def predictions(token_ids: np.ndarray, bos_id: int | None, eos_id: int | None) -> Predictions:
    """What a document costs: every token, the end of text included, is paid for once.

    The first token is predicted from the beginning of text where the tokenizer sets one (which itself costs nothing);
    else from the end of text that precedes it in a row, alone, as in training; else it costs log2(vocabulary).
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    if len(ids) and bos_id is None and eos_id is not None:
        return Predictions(np.concatenate(([eos_id], ids[:-1])), ids, alone=True, unpredicted=0)
    return Predictions(ids[:-1], ids[1:], alone=False, unpredicted=int(len(ids) > 0 and bos_id is None))


def evaluate(
    model: Decoder,
    held_out: HeldOut,
    *,
    row_length: int,
    rows_at_once: int = 8,
    autocast: torch.dtype | None = None,
) -> Evaluation:
    """Bits per byte of a model on held-out documents: the sum of -log2 p over all tokens, over the bytes of text.

    A document longer than a row is cut into windows of `row_length` predictions, each of which sees only itself, as the
    rows trained on do. Windows share rows, but no attention: for routers that are not bound to their batch, the result
    does not depend on how they are laid out. Padding is seen by no expert.

    Args:
        model: put into evaluation mode here, and back.
        held_out: the documents.
        row_length: L of the rows that were trained on.
        rows_at_once: rows of one pass.
        autocast: run products in this dtype; None in the weights' own.
    Raises:
        NothingToDo: there is no held-out document, or none has a byte.
    """
    device = model.embed_tokens.device
    was_training = model.training
    tally = _Tally(held_out, model.config.vocab_size)
    windows = (window for told in tally.read() for window in _windows(told, row_length))
    model.eval()
    try:
        for batch in _batches(windows, rows_at_once, row_length):
            tally.bits += _nats(model, batch, device, autocast) / math.log(2)
    finally:
        model.train(was_training)
    return tally.evaluation()


def bits_with(model: Callable[[np.ndarray, np.ndarray], np.ndarray], held_out: HeldOut, vocab_size: int) -> Evaluation:
    """Bits per byte, by the same rule, of a model that needs one token of context.

    Args:
        model: (contexts, labels) -> bits of each label; a baseline's `bits`.
        held_out: the documents.
        vocab_size: prices what cannot be predicted.
    """
    tally = _Tally(held_out, vocab_size)
    for told in tally.read():
        tally.bits += float(model(told.context, told.label).sum())
    return tally.evaluation()


class _Tally:
    """Reads the documents once and adds up what they are; whoever reads adds the bits of their predictions."""

    def __init__(self, held_out: HeldOut, vocab_size: int) -> None:
        self.bits = 0.0
        self._held_out, self._vocab_size = held_out, vocab_size
        self._bytes = self._tokens = self._documents = 0

    def read(self) -> Iterator[Predictions]:
        for token_ids, num_bytes in self._held_out.documents:
            told = predictions(token_ids, self._held_out.bos_id, self._held_out.eos_id)
            self._documents += 1
            self._bytes += num_bytes
            self._tokens += len(told.label) + told.unpredicted
            self.bits += told.unpredicted * math.log2(self._vocab_size)
            yield told

    def evaluation(self) -> Evaluation:
        if self._bytes == 0:
            raise NothingToDo(
                f"{self._documents:,} held-out documents have no text to evaluate on",
                hint="hold some documents out: `dataforge ingest --holdout 0.5%`",
            )
        return Evaluation(self.bits, self._bytes, self._tokens, self._documents)


_Window = tuple[np.ndarray, np.ndarray]
"""Contexts and labels of one stretch of attention."""


def _windows(told: Predictions, row_length: int) -> Iterator[_Window]:
    start = 0
    if told.alone:
        yield told.context[:1], told.label[:1]
        start = 1
    for begin in range(start, len(told.label), row_length):
        yield told.context[begin : begin + row_length], told.label[begin : begin + row_length]


@dataclass(frozen=True)
class _Batch:
    token_ids: np.ndarray
    labels: np.ndarray
    context: np.ndarray
    position: np.ndarray
    valid: np.ndarray


def _batches(windows: Iterable[_Window], num_rows: int, row_length: int) -> Iterator[_Batch]:
    """Windows laid one behind the other into rows; one that does not fit opens the next row."""
    rows: list[list[_Window]] = [[]]
    room = row_length
    for window in windows:
        if len(window[0]) > room:
            if len(rows) == num_rows:
                yield _batch(rows, row_length)
                rows = []
            rows.append([])
            room = row_length
        rows[-1].append(window)
        room -= len(window[0])
    if rows[-1]:
        yield _batch(rows, row_length)


def _batch(rows: Sequence[Sequence[_Window]], row_length: int) -> _Batch:
    shape = (len(rows), row_length)
    batch = _Batch(
        token_ids=np.zeros(shape, dtype=np.int64),
        labels=np.zeros(shape, dtype=np.int64),
        context=np.tile(-1 - np.arange(row_length), (len(rows), 1)),  # each place of padding is a stretch of its own
        position=np.zeros(shape, dtype=np.int64),
        valid=np.zeros(shape, dtype=bool),
    )
    for row, windows in enumerate(rows):
        at = 0
        for number, (context, label) in enumerate(windows):
            end = at + len(label)
            batch.token_ids[row, at:end] = context
            batch.labels[row, at:end] = label
            batch.context[row, at:end] = number
            batch.position[row, at:end] = np.arange(len(label))
            batch.valid[row, at:end] = True
            at = end
    return batch


def _nats(model: Decoder, batch: _Batch, device: torch.device, autocast: torch.dtype | None) -> float:
    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    layout = DocumentLayout(there(batch.context), there(batch.position))
    valid = there(batch.valid)
    # A full batch needs no mask, and without one the experts' rows need no count.
    whole = bool(batch.valid.all())
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        hidden = model.hidden(there(batch.token_ids), layout, valid=None if whole else valid).hidden
    nll = token_nll(hidden[valid], model.head, there(batch.labels)[valid])
    return float(nll.double().sum())
