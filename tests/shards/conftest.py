"""Small shards on disk."""

from pathlib import Path

import numpy as np
import pytest

from dataforge.shards import ShardWriter, write_index

FINGERPRINT = bytes(range(32))


class Made:
    """Shards of random documents in a folder, and what went into them."""

    def __init__(self, folder: Path, *, parts=3, documents=40, vocab_size=300, bos_id=None, eos_id=None, gaps=True):
        rng = np.random.default_rng(3)
        self.folder, self.documents, self.text_bytes = folder, {}, {}
        self.paths = [folder / f"part-{i:05d}.tok" for i in range(parts)]
        number = 0
        for index, path in enumerate(self.paths):
            with ShardWriter(
                path, vocab_size=vocab_size, fingerprint=FINGERPRINT, bos_id=bos_id, eos_id=eos_id
            ) as writer:
                for _ in range(documents if index != 1 else 0):  # the middle part holds nothing
                    number += int(rng.integers(1, 4)) if gaps else 1
                    ids = rng.integers(0, vocab_size, int(rng.integers(0, 50)))
                    writer.add(number, ids, 3 * ids.size)
                    around = [[] if i is None else [i] for i in (bos_id, eos_id)]
                    self.documents[number] = [*around[0], *ids.tolist(), *around[1]]
                    self.text_bytes[number] = 3 * ids.size
        write_index(folder / "index.tok", self.paths)


@pytest.fixture
def make_shards(tmp_path):
    """A function that writes shards below `tmp_path`."""

    def make(name: str = "t@0123456789ab", **options) -> Made:
        folder = tmp_path / "shards" / name
        folder.mkdir(parents=True)
        return Made(folder, **options)

    return make
