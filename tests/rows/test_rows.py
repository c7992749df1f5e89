"""Rows packed from a real plan and real shards: the tokens, where they came from, and what is refused."""

import json

import numpy as np
import pytest
from kill_points import run_and_kill
from tiny_rows import make_chain

from dataforge.errors import (
    ArtifactIncomplete,
    ArtifactNotFound,
    ChecksumMismatch,
    ConfigError,
    DataforgeError,
    NothingToDo,
    PastTheEnd,
    UnknownName,
)
from dataforge.plans import SamplingPlan
from dataforge.rows import Rows, pack, row_index
from dataforge.rows.pack import PackConfig
from dataforge.runners import ProcessPool
from dataforge.shards import Shards
from dataforge.stage import Run
from dataforge.workspace import Workspace


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize("row_length", [1, 7, 64, 1000])
def test_rows_are_the_draws_one_behind_the_other(chain, row_length):
    artifact = chain.pack(row_length)
    rows = Rows(artifact)
    assert rows.num_rows == (len(chain.sequence) - 1) // row_length
    for index in range(rows.num_rows) if row_length > 1 else range(0, rows.num_rows, 97):
        token_ids, segments = rows.read(index)
        assert token_ids.tolist() == chain.row(index, row_length)
        assert token_ids.dtype == np.uint16
        assert segments[:, 3].sum() == row_length + 1
        spelled = [(document, offset + k) for _, document, offset, length in segments.tolist() for k in range(length)]
        assert spelled == chain.origin[index * row_length : index * row_length + row_length + 1]
        assert set(segments[:, 0]) == {index}
    rows.check_all()


def test_many_rows_at_once_are_the_same_as_one_by_one(chain):
    rows = Rows(chain.pack(64))
    wanted = np.array([0, 1, 2, 5, 9, rows.num_rows - 1])
    table = rows.segments(wanted)
    assert table.tolist() == [segment for row in wanted for segment in rows.segments(row).tolist()]
    out = np.empty((wanted.size, 65), np.int64)
    rows.gather(rows.spans(wanted), out.reshape(-1))
    assert out.tolist() == [rows.read(int(row))[0].tolist() for row in wanted]
    assert rows.segments(np.zeros(0, np.int64)).shape == (0, 4)


def test_tokens_are_conserved_and_the_tail_is_listed(chain):
    for row_length in (7, 64, 1000):
        counts = chain.pack(row_length).counts
        rows = (len(chain.sequence) - 1) // row_length
        assert counts["in"]["tokens"] == len(chain.sequence)
        assert counts["out"]["tokens"] == rows * row_length + 1
        assert counts["dropped"] == {"tail": {"tokens": len(chain.sequence) - rows * row_length - 1}}
        assert (counts["rows"], counts["draws"]) == (rows, len(chain.drawn))


def test_a_trace_names_the_draw_of_every_segment(chain):
    rows = Rows(chain.pack(64))
    plan = SamplingPlan.open(chain.plan)
    token = 0
    seen: dict[int, int] = {}
    for row in range(rows.num_rows):
        for trace in rows.trace(row):
            assert chain.drawn[trace.position] == trace.document
            cluster, inside, epoch = (int(told[0]) for told in plan.at(np.array([trace.position])))
            assert (trace.cluster, trace.epoch) == (cluster, epoch)
            assert plan.document_numbers(cluster, inside) == trace.document
            assert trace.reason["cluster"] == cluster
            if trace.offset == 0 and trace.length > 0:
                assert seen.setdefault(trace.position, row) in (row, row - 1)
            token += trace.length
    assert token == rows.num_rows * 65


def test_rows_past_the_end_and_negative_rows_are_refused(chain):
    rows = Rows(chain.pack(64))
    for row in (rows.num_rows, -1, 2**40):
        with pytest.raises(PastTheEnd, match="there is no row"):
            rows.read(row)


def test_too_long_rows_and_unknown_packings_are_refused(chain):
    with pytest.raises(NothingToDo, match="one row needs 100,001"):
        chain.pack(100_000)
    for row_length in (0, -1, 1 << 21):
        with pytest.raises(ConfigError):
            PackConfig(row_length=row_length)
    with pytest.raises(UnknownName, match="concatt"):
        PackConfig(packing="concatt")


def test_packing_in_several_parts_gives_the_same_rows(tmp_path, monkeypatch):
    chain = make_chain(tmp_path, num_draws=1500, longest=20)
    whole = chain.pack(32)
    assert len(whole.parts(".rows")) == 2  # one part, and the index
    monkeypatch.setattr(pack, "DRAWS_PER_PART", 512)
    monkeypatch.setattr(pack, "_DRAWS_AT_ONCE", 100)
    monkeypatch.setattr(row_index, "DRAWS_PER_PAGE", 512)
    monkeypatch.setattr(row_index, "PAGE_BYTES", 4096)
    cut = make_chain(tmp_path / "again", num_draws=1500, longest=20).pack(32)
    assert len(cut.parts(".rows")) == 4
    one, three = Rows(whole), Rows(cut)
    assert one.num_rows == three.num_rows == (len(chain.sequence) - 1) // 32
    everything = np.arange(one.num_rows)
    assert (one.segments(everything) == three.segments(everything)).all()
    for row in range(0, one.num_rows, 7):
        assert one.read(row)[0].tolist() == three.read(row)[0].tolist() == chain.row(row, 32)


def test_a_pool_of_processes_packs_to_the_same_content(tmp_path):
    here, there = make_chain(tmp_path / "a"), make_chain(tmp_path / "b")
    config = PackConfig(row_length=16)
    one = pack.pack(here.workspace, here.plan, here.shards, name="tiny", config=config)
    pool = Run(runner=ProcessPool(2))
    two = pack.pack(there.workspace, there.plan, there.shards, name="tiny", config=config, run=pool)
    assert (one.id, one.content) == (two.id, two.content)


def test_pack_killed_at_a_publish_point_goes_on_to_the_same_content(tmp_path):
    undisturbed = make_chain(tmp_path / "whole").pack(16)
    for at, after in ((1, False), (1, True), (3, False), (4, True)):
        chain = make_chain(tmp_path / f"{at}{after}")
        killed = (chain.workspace.path, chain.plan, chain.shards)
        assert run_and_kill(pack_here, killed, at, after)
        artifact = chain.pack(16)
        assert (artifact.id, artifact.content) == (undisturbed.id, undisturbed.content)
        assert artifact.verify() == []
        Rows(artifact).check_all()


def pack_here(path, plan, shards):
    pack.pack(Workspace(path), plan, shards, name="tiny", config=PackConfig(row_length=16))


def test_another_row_length_makes_another_index_and_finds_its_parts(chain):
    one, two = chain.pack(64), chain.pack(65)
    assert one.id != two.id
    assert json.loads((two.path / "run.json").read_text())["made"] == 0
    assert one.part("part-00000.rows")["sha256"] == two.part("part-00000.rows")["sha256"]


def test_damage_in_shards_or_index_never_reaches_a_row(tmp_path):
    chain = make_chain(tmp_path)
    artifact = chain.pack(16)
    shard = chain.shards.path / "part-00001.tok"
    data = bytearray(shard.read_bytes())
    data[4096 + 100] ^= 4
    shard.write_bytes(data)
    rows = Rows(artifact)
    with pytest.raises(ChecksumMismatch, match=r"part-00001\.tok: page 0 of TOKENS"):
        _read_all(rows)


def test_shards_of_other_documents_are_noticed(tmp_path):
    chain = make_chain(tmp_path)
    artifact = chain.pack(16)
    other = make_chain(tmp_path / "other", seed=1)
    rows = Rows(artifact, shards=Shards(other.shards))
    with pytest.raises(DataforgeError, match=r"other lengths|in none of the"):
        _read_all(rows)


def _read_all(rows):
    for row in range(rows.num_rows):
        rows.read(row)


def test_only_whole_rows_can_be_opened_as_rows(chain, tmp_path):
    with pytest.raises(ArtifactNotFound, match="no such folder"):
        Rows(tmp_path / "nowhere")
    with pytest.raises(ArtifactIncomplete, match=r"no manifest\.json"):
        Rows(tmp_path)
    with pytest.raises(ConfigError, match="is no rows artifact"):
        Rows(chain.plan)
