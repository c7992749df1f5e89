"""What native/bindings.cpp gives Python: one comment a section there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# shards: checksums and row gathering

crc32c_hardware: bool

def crc32c(data: NDArray[np.uint8], value: int = 0) -> int: ...
def crc32c_table(data: NDArray[np.uint8], value: int = 0) -> int: ...
def crc32c_pages(data: NDArray[np.uint8], page_bytes: int, out: NDArray[np.uint32]) -> None: ...
def gather_spans(
    part: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    address: NDArray[np.uint64],
    num_tokens: NDArray[np.int64],
    source_bytes: int,
    out: NDArray[Any],
) -> None: ...
def locate_documents(
    part: NDArray[np.int64],
    number: NDArray[np.int64],
    numbers_at: NDArray[np.uint64],
    ends_at: NDArray[np.uint64],
    first_number: NDArray[np.int64],
    num_documents: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int64],
) -> int: ...

# tokenizers: texts, word counts, training, encoding

class TextBatch:
    def __init__(self) -> None: ...
    def add_sequence(self, texts: Sequence[str | bytes]) -> None: ...
    def add_arrow(self, offsets: NDArray[Any], data: NDArray[np.uint8]) -> None: ...
    def __len__(self) -> int: ...
    def num_bytes(self) -> int: ...

def character_classes(text: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
def split(texts: TextBatch, pattern: str) -> NDArray[np.int64]: ...

class WordCounts:
    def __init__(self) -> None: ...
    def add(self, texts: TextBatch, pattern: str, num_threads: int) -> None: ...
    def add_counts(self, bytes: NDArray[np.uint8], offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> None: ...
    def __len__(self) -> int: ...
    def sorted(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]: ...

def check_words(bytes: NDArray[np.uint8], offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> None: ...
def train_merges(
    bytes: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    vocab_size: int,
    num_special_tokens: int,
    scaffold: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], bool]: ...

class Encoder:
    def __init__(
        self,
        tokens: list[bytes],
        in_text: NDArray[np.uint8],
        byte_ids: NDArray[np.uint32],
        merges: NDArray[np.int32],
        num_model_ids: int,
        whole_words_first: bool,
        pattern: str,
        kind: str,
    ) -> None: ...
    def encode(self, texts: TextBatch, num_threads: int) -> tuple[NDArray[Any], NDArray[np.int64]]: ...

def reachable_merges(
    tokens: list[bytes], byte_ids: NDArray[np.uint32], pairs: NDArray[np.int32] | None = None
) -> NDArray[np.int32]: ...
def join_tokens(bytes: NDArray[np.uint8], offsets: NDArray[np.int64], ids: NDArray[np.uint32]) -> bytes: ...
