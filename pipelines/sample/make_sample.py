"""Cut the bundled sample from a folder of corpus Parquet files, the same bytes every time.

    python pipelines/sample/make_sample.py CORPUS [--out FOLDER]

`CORPUS` holds `train-*.parquet` with the string columns `id`, `text`, `source`, `lang`, `license`, `url`. The documents
of a source are put in the order of a keyed hash of their id and taken until the next one would overflow the source's
byte budget, so neither the order of the rows nor the number of files matters. In a source marked `copies`, documents
whose text occurs more than once in the corpus come first: the copies are as found, only their share is raised, so that
exact dedup has work to do on a small sample.

Needs pyarrow alone. The documents are the same on every machine; the compressed files are the same bytes for the same
pyarrow and zlib.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COLUMNS = ("id", "text", "source", "lang", "license", "url")
KEY = b"dataforge sample 1"
ZSTD_LEVEL = 22
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)

PROSE, CODE, LANGUAGES, SHORT = "prose.parquet", "code.jsonl.zst", "languages.jsonl.zst", "short.jsonl.gz"
TEXT_FILES = "recipes-en"

Document = dict[str, str]


@dataclass(frozen=True)
class Take:
    """How much of one source goes into which file."""

    source: str
    kilobytes: int
    """Budget of text, 1,000 bytes each."""
    file: str
    """A file of `data/`, or a folder of it that gets one text file a document."""
    origins: tuple[str, ...] = ("",)
    """Only documents whose url starts with one of these: the projects whose notices LICENCES.md carries."""
    licenses: tuple[str, ...] = ()
    """Only documents under one of these; empty takes any."""
    copies: bool = False
    """Take documents whose text occurs more than once first."""


TAKES = (
    Take("books-en", 1760, PROSE),
    Take("legal-de", 570, PROSE),
    Take("abstracts-cs", 420, PROSE, copies=True),
    Take("speeches-sotu", 310, PROSE),
    Take("docs-python", 310, PROSE),
    Take("peps", 270, PROSE),
    Take("factbook", 260, PROSE),
    Take("code-python", 430, CODE, ("pypi django ", "pypi sympy ", "pypi networkx "), ("BSD-3-Clause",)),
    Take("code-javascript", 250, CODE, ("npm three ", "npm eslint ")),
    Take("code-go", 210, CODE, ("debian golang-golang-x-tools-dev ",)),
    Take("code-rust", 210, CODE, ("debian librust-tokio-dev ",)),
    Take("code-c", 170, CODE, ("pypi brotli ",)),
    Take("code-css", 65, CODE, ("npm bootstrap ",)),
    Take("tldr-multi", 680, LANGUAGES, copies=True),
    Take("poetry-zh", 620, LANGUAGES, copies=True),
    Take("qa-multilingual", 430, LANGUAGES),
    Take("recipes-zh", 90, LANGUAGES),
    Take("math-word-problems", 560, SHORT),
    Take("dialog-tasks", 260, SHORT, copies=True),
    Take("queries-short", 70, SHORT),
    Take("chess", 60, SHORT),
    Take("recipes-en", 80, TEXT_FILES),
)


def read_corpus(folder: Path) -> list[Document]:
    """Every document of `train-*.parquet` in `folder` that belongs to a source taken here.

    Raises:
        FileNotFoundError: the folder holds no such file.
    """
    paths = sorted(folder.glob("train-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"no train-*.parquet in {folder}")
    sources = pa.array([take.source for take in TAKES])
    documents: list[Document] = []
    for path in paths:
        table = pq.read_table(path, columns=list(COLUMNS))
        documents += table.filter(pc.is_in(table["source"], value_set=sources)).to_pylist()
    return documents


def choose(documents: Sequence[Document]) -> dict[str, list[Document]]:
    """The documents of each file, sources in the order of `TAKES`, documents by url inside a source.

    Raises:
        ValueError: a source has no document to take.
    """
    occurrences = Counter(document["text"] for document in documents)
    by_source: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_source[document["source"]].append(document)
    files: dict[str, list[Document]] = defaultdict(list)
    for take in TAKES:
        taken = _within(take, _in_order(take, by_source[take.source], occurrences))
        if not taken:
            raise ValueError(f"the corpus has nothing to take for source {take.source!r} within {take.kilobytes} kB")
        files[take.file] += sorted(taken, key=lambda document: (document["url"], document["id"]))
    return dict(files)


def _in_order(take: Take, documents: Iterable[Document], occurrences: Counter[str]) -> list[Document]:
    def key(document: Document) -> tuple[bool, bytes]:
        copied = take.copies and occurrences[document["text"]] > 1
        return not copied, hashlib.blake2b(document["id"].encode(), key=KEY).digest()

    allowed = [
        document
        for document in documents
        if document["url"].startswith(take.origins) and (not take.licenses or document["license"] in take.licenses)
    ]
    return sorted(allowed, key=key)


def _within(take: Take, documents: Iterable[Document]) -> list[Document]:
    left, taken = take.kilobytes * 1000, []
    for document in documents:
        left -= len(document["text"].encode())
        if left < 0:
            break
        taken.append(document)
    return taken


def write_data(files: dict[str, list[Document]], folder: Path) -> None:
    """Write every file of `data/` in the format that its name says. A text file holds its document's text alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in files.items():
        path = folder / name
        if name.endswith(".parquet"):
            _write_parquet(documents, path)
        elif name.endswith((".gz", ".zst")):
            lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents).encode()
            if name.endswith(".gz"):
                path.write_bytes(gzip.compress(lines, compresslevel=9, mtime=0))
            else:
                path.write_bytes(pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(lines, asbytes=True))
        else:
            path.mkdir(exist_ok=True)
            for old in path.glob("*.txt"):
                old.unlink()
            for document in documents:
                (path / f"{document['id']}.txt").write_bytes(document["text"].encode())


def _write_parquet(documents: Sequence[Document], path: Path) -> None:
    """One row group and one page a column, so that zstd sees a whole column at once."""
    table = pa.Table.from_pylist(list(documents), pa.schema([(column, pa.string()) for column in COLUMNS]))
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        row_group_size=len(documents),
        data_page_size=1 << 30,
        use_dictionary=["source", "lang", "license"],
        write_statistics=False,
    )


def table_of(files: dict[str, list[Document]]) -> str:
    """README.md's table: documents, bytes, languages, licence and origin of each source, largest first."""
    rows: dict[str, tuple[str, list[Document]]] = {}
    for name, documents in files.items():
        for document in documents:
            rows.setdefault(document["source"], (name, []))[1].append(document)
    everything = [document for documents in files.values() for document in documents]
    lines = ["| source | documents | bytes | share | languages | licence | origin | file |", "|" + "---|" * 8]
    ordered = sorted(rows.items(), key=lambda row: -_num_bytes(row[1][1]))
    for source, (name, documents) in [*ordered, ("all", ("", everything))]:
        licenses = "; ".join(sorted({document["license"] for document in documents})) if name else ""
        languages = " ".join(sorted({document["lang"] for document in documents})) if name else ""
        origins = "; ".join(sorted({_origin(document["url"]) for document in documents})) if name else ""
        share = _num_bytes(documents) / _num_bytes(everything)
        told = f"{len(documents):,} | {_num_bytes(documents):,} | {share:.1%}"
        lines.append(f"| {source} | {told} | {languages} | {licenses} | {origins} | {name} |")
    return "\n".join(lines) + "\n"


def _num_bytes(documents: Iterable[Document]) -> int:
    return sum(len(document["text"].encode()) for document in documents)


def _origin(url: str) -> str:
    """`owner/repository@commit` or `registry package version`: a url without the place inside."""
    package = re.match(r"(npm|pypi|debian) (\S+) (\S+?)(?= |:(?!\d+[.:]))", url)
    return package.group() if package else url.split(":")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `data/` and, where there is a README.md, its table."""
    parser = argparse.ArgumentParser(description="Cut the bundled sample from a corpus folder.")
    parser.add_argument("corpus", type=Path, help="folder with train-*.parquet")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where data/ goes (default: here)")
    given = parser.parse_args(arguments)
    files = choose(read_corpus(given.corpus))
    write_data(files, given.out / "data")
    table = table_of(files)
    readme = given.out / "README.md"
    if readme.exists():
        readme.write_text(TABLE.sub(lambda _: table, readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
