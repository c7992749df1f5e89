"""One HTML file about a chain. It opens without a network: no script, no outside style, font or picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataforge.analysis import balance, cluster_map, experts, made, mixture, seconds, tokenizer, training
from dataforge.analysis.chain import Chain
from dataforge.analysis.headline import headline
from dataforge.analysis.markup import Html, join, tag
from dataforge.analysis.section import Section
from dataforge.workspace import Artifact, Workspace
from dataforge.workspace import parts as files

SECTIONS = (balance, cluster_map, mixture, tokenizer, training, experts, made, seconds)
"""Modules with a function `section(chain) -> Section`, in the order of the page."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def report(workspace: Workspace, refs: str | Artifact | Sequence[str | Artifact] | None, out_path: Path | str) -> Path:
    """Write a report on some artifacts and all that they were made from; the same artifacts give the same bytes.

    Sections whose artifacts are not in the chain say so.

    Args:
        workspace: where the artifacts are.
        refs: one artifact or reference, or several; None takes the newest checkpoint, or else the newest artifact.
        out_path: where the file goes; what was there is replaced.
    Returns:
        The file's absolute path.
    Raises:
        ArtifactNotFound: nothing of that name, or an empty workspace.
    """
    chain = Chain.of(workspace, refs)
    path = Path(out_path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = files.temporary(path)
    beside.write_text(page(chain), encoding="utf-8", newline="\n")
    files.replace(beside, path)
    return path


def page(chain: Chain) -> str:
    """The report on a chain as HTML."""
    sections = [module.section(chain) for module in SECTIONS]
    title = f"dataforge: {', '.join(artifact.ref for artifact in chain.asked_for)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))),
    )
    body = tag("body", _top(chain, sections), tag("main", *(section.html() for section in sections)), _foot(chain))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _top(chain: Chain, sections: Sequence[Section]) -> Html:
    named = join([tag("code", artifact.ref) for artifact in chain.asked_for])
    links = [tag("a", section.title, href=f"#{section.anchor}") for section in sections if section.body is not None]
    tiles = [
        tag("div", tag("dt", figure.name), tag("dd", figure.value, tag("small", figure.note) if figure.note else None))
        for figure in headline(chain)
    ]
    return tag(
        "header",
        tag(
            "h1", "From raw text to a trained model" if chain.one("checkpoints") else "From raw text to a token stream"
        ),
        tag("p", named, f", and the {len(chain.artifacts):,} artifacts that lead there", class_="soft"),
        tag("dl", *tiles, class_="tiles"),
        tag("nav", *links, aria_label="Sections"),
    )


def _foot(chain: Chain) -> Html:
    from dataforge import __version__

    told = f"Made by dataforge {__version__} from the manifests in {chain.workspace.path.name}/. "
    return tag("footer", tag("p", told, "Nothing outside this file is needed to read it."))
