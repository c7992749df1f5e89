"""The bundled sample is what its README says, and its script makes it again."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataforge.corpus.readers import format_of, rows_of

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "pipelines" / "sample"
DATA = SAMPLE / "data"
COLUMNS = {"id", "text", "source", "lang", "license", "url"}


@pytest.fixture(scope="module")
def documents() -> dict[str, list[dict[str, str]]]:
    """File or folder of `data/` -> its documents, read by other code than the script's and the package's."""
    files: dict[str, list[dict[str, str]]] = {}
    for path in sorted(DATA.iterdir()):
        if path.is_dir():
            files[path.name] = [
                {"id": file.stem, "text": file.read_bytes().decode(), "source": path.name} for file in path.iterdir()
            ]
        elif path.suffix == ".parquet":
            files[path.name] = pq.read_table(path).to_pylist()
        else:
            raw = path.read_bytes()
            data = gzip.decompress(raw) if path.suffix == ".gz" else pa.input_stream(path, compression="zstd").read()
            files[path.name] = [json.loads(line) for line in data.decode().split("\n") if line]
    return files


@pytest.fixture(scope="module")
def everything(documents: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return [document for file in documents.values() for document in file]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("make_sample", SAMPLE / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_sample_has_six_megabytes_of_text_in_at_most_three_megabytes_of_files(everything):
    assert sum(len(document["text"].encode()) for document in everything) >= 6_000_000
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 3_000_000
    assert 8_000 <= len(everything) <= 12_000


def test_sample_is_imbalanced_twentyfold_over_at_least_twelve_sources(everything):
    sizes: Counter[str | None] = Counter()
    for document in everything:
        sizes[document["source"]] += len(document["text"].encode())
    assert len(sizes) >= 12
    assert max(sizes.values()) >= 20 * min(sizes.values())


def test_sample_speaks_several_languages_and_programming_languages(everything):
    sizes: Counter[str | None] = Counter()
    for document in everything:
        sizes[document.get("lang")] += len(document["text"].encode())
    for lang in ("en", "zh", "de", "ru", "python", "javascript", "rust", "go", "c"):
        assert sizes[lang] >= 100_000, lang


def test_every_row_carries_all_columns_and_a_licence_and_ids_are_unique(documents, everything):
    for name, rows in documents.items():
        if not (DATA / name).is_dir():
            for row in rows:
                assert set(row) == COLUMNS
                assert all(isinstance(value, str) and value.strip() for value in row.values()), row["id"]
    assert len({document["id"] for document in everything}) == len(everything)


def test_sample_holds_some_byte_identical_copies(everything):
    texts = Counter(document["text"] for document in everything)
    assert 30 <= sum(times - 1 for times in texts.values()) <= 100


def test_sample_has_no_copyleft_software_licence(everything):
    assert not [row["id"] for row in everything if re.search("GPL|GFDL", row.get("license", ""))]


def test_our_own_readers_take_every_row_of_the_sample(everything):
    texts = []
    for path in sorted(path for path in DATA.rglob("*") if path.is_file()):
        kind = format_of(path.name)
        assert kind is not None, f"{path.name} would stop an ingest of the folder"
        for row in rows_of(path, path.name, kind):
            assert row.values is not None, row
            texts.append(row.values["text"])
    assert Counter(texts) == Counter(document["text"] for document in everything)


def test_readme_table_says_what_the_files_hold(everything):
    told = {
        cells[0]: tuple(int(cell.replace(",", "")) for cell in cells[1:3])
        for line in (SAMPLE / "README.md").read_text(encoding="utf-8").split("\n")
        if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) >= 3 and cells[1][0].isdigit()
    }
    held: dict[str, tuple[int, int]] = {}
    for document in everything:
        for source in (document["source"], "all"):
            number, size = held.get(source, (0, 0))
            held[source] = (number + 1, size + len(document["text"].encode()))
    assert told == held


def test_every_source_has_its_notice(everything):
    notices = (SAMPLE / "LICENCES.md").read_text(encoding="utf-8")
    for source in {document["source"] for document in everything}:
        assert re.search(rf"^(\| )?{source}( \||:)", notices, re.MULTILINE), source


def test_script_makes_the_same_files_whatever_the_order_and_number_of_corpus_files(
    script, documents, everything, tmp_path
):
    stand_in = {"lang": "en", "license": "Unlicense", "url": "LukeSmithxyz/based.cooking@2d8642ec41:content/x.md"}
    corpus = [{**stand_in, **document} for document in everything]
    for run, (seed, shards) in enumerate(((1, 1), (2, 3))):
        folder = tmp_path / f"corpus-{run}"
        folder.mkdir()
        random.Random(seed).shuffle(corpus)
        for shard in range(shards):
            pq.write_table(pa.Table.from_pylist(corpus[shard::shards]), folder / f"train-{shard:05d}.parquet")
        script.main([str(folder), "--out", str(tmp_path / f"out-{run}")])
    made = {path.relative_to(tmp_path / "out-0"): path for path in (tmp_path / "out-0").rglob("*") if path.is_file()}
    assert {path.relative_to(DATA.parent) for path in DATA.rglob("*") if path.is_file()} == set(made)
    for name, path in made.items():
        assert path.read_bytes() == (tmp_path / "out-1" / name).read_bytes(), name
    assert pq.read_table(tmp_path / "out-0/data/prose.parquet").to_pylist() == documents["prose.parquet"]
    with gzip.open(tmp_path / "out-0/data/short.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        assert [json.loads(line) for line in file] == documents["short.jsonl.gz"]


def test_script_stops_at_a_sources_budget_and_names_a_source_that_is_missing(script):
    take = script.Take("chess", 1, "x.parquet")
    sized = [{"text": "é" * size} for size in (300, 200, 1, 100)]
    assert script._within(take, sized) == sized[:2]  # 600 + 400 bytes; the third would overflow
    with pytest.raises(ValueError, match="books-en"):
        script.choose([])


@pytest.mark.corpus
def test_committed_sample_is_cut_from_the_shared_corpus(script, tmp_path):
    script.main([str(ROOT.parent / "shared" / "corpus"), "--out", str(tmp_path)])
    for path in (path for path in DATA.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(SAMPLE)).read_bytes(), path.name
