"""docs/formats.md: its reader, run on real files, agrees with dataforge; and the bytes of every format stay."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_rows import make_chain

from dataforge.rows import Rows, row_index
from dataforge.rows.row_index import write_ends
from dataforge.shards import Shards, ShardWriter, write_index
from dataforge.streams import Window, WindowRequest
from dataforge.streams.frames import FrameType, Header

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.fixture(scope="module")
def reader():
    """The functions of the page's reader."""
    source = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[-1]
    lines = [line for line in source.splitlines() if line.strip()]
    assert len(lines) < 60
    names: dict = {}
    exec(compile(source, str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_chain(tmp_path_factory.mktemp("formats"))


def test_the_reader_of_the_page_reads_shards(reader, chain):
    shards = Shards(chain.shards)
    for path in sorted(chain.shards.path.glob("part-*.tok")):
        kind, _, sections = reader["sealed"](path)
        assert kind == "tokens"
        for number in sections["DOCNUMBER"].tolist()[::20]:
            ids = reader["document"](path, number).tolist()
            assert ids == shards.tokens(number).tolist() == chain.documents[number]
    assert reader["sealed"](chain.shards.path / "index.tok")[0] == "tokindex"


def test_the_reader_of_the_page_reads_row_indexes(reader, chain):
    artifact = chain.pack(40)
    rows = Rows(artifact)
    for row in (0, 7, rows.num_rows - 1):
        found = list(reader["pieces"](artifact.path, row))
        assert [(chain.drawn[draw], offset, length) for draw, offset, length in found] == [
            (document, offset, length) for _, document, offset, length in rows.segments(row).tolist()
        ]


def test_the_reader_of_the_page_reads_windows(reader, chain):
    rows = Rows(chain.pack(40))
    window = Window(rows, WindowRequest(cursor=5, steps=3, global_batch=4))
    told = list(reader["frames"](b"".join(window.frames())))
    assert [kind for kind, *_ in told] == [2, 1, 3]
    assert json.loads(told[0][3])["rows"] == rows.digest
    _, first, table, payload = told[1]
    assert (first, told[2][1]) == (5, 17)
    assert table.tolist() == rows.segments(np.arange(5, 17)).tolist()
    assert np.frombuffer(payload, "<u2").reshape(-1, 41).tolist() == [chain.row(row, 40) for row in range(5, 17)]


def test_the_bytes_of_a_shard_and_its_index_stay_as_they_are(tmp_path):
    """Golden: a change here is another version of the format."""
    with ShardWriter(tmp_path / "part-00000.tok", vocab_size=300, fingerprint=bytes(range(32)), eos_id=299) as writer:
        for number in (0, 2, 3):
            writer.add(number, np.arange(5 * number), 7 * number)
    write_index(tmp_path / "index.tok", [tmp_path / "part-00000.tok"])
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(tmp_path.iterdir())}
    assert found == {"index.tok": "33ec6e9e1c68e28b", "part-00000.tok": "ce77bd9dda11c50d"}


def test_the_bytes_of_a_row_index_and_a_frame_header_stay_as_they_are(tmp_path):
    """Golden: a change here is another version of the format."""
    write_ends(tmp_path / "part-00000.rows", 0, [np.arange(9_000) % 7])
    row_index.write_index(tmp_path / "index.rows", [tmp_path / "part-00000.rows"], row_length=16, packing="concat")
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(tmp_path.iterdir())}
    header = Header(FrameType.DATA, 2, 40, 3, 16, 102, 160, 0xDEADBEEF, 1, 0x0123456789ABCDEF)
    assert found == {"index.rows": "7f1a022111caf0c6", "part-00000.rows": "7853f79cb8b85f83"}
    assert header.pack().hex() == (
        "44464652010102002800000000000000030000001000000066000000a0000000"
        "efbeadde01000000efcdab8967452301000000000000000000000000b915baa2"
    )
