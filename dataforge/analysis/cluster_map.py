"""A map of the clusters: near on it is near in meaning, as far as two dimensions can show it."""

from __future__ import annotations

import numpy as np

from dataforge.analysis.balance import balance, explained
from dataforge.analysis.chain import Chain
from dataforge.analysis.charts import Dot, scatter
from dataforge.analysis.markup import figure, table, tag
from dataforge.analysis.section import Section

MOST_CLUSTERS = 500
MOST_POINTS = 2500


def section(chain: Chain) -> Section:
    """Clusters as discs and rings over a sample of documents."""
    artifact, told = chain.one("explanations"), balance(chain)
    if artifact is None or told is None:
        return Section("map", "Map of clusters", None, "no explanations (keywords and map) were made of clusters here.")
    from dataforge.clusters import read_map

    about = explained(chain)
    before, after = told.before, told.after
    held = [cluster for cluster in np.argsort(-before, kind="stable").tolist() if told.sizes_C[cluster] > 0]
    dots = []
    for cluster in held[:MOST_CLUSTERS]:
        row = about[cluster]
        words = ", ".join(row["keywords"][:6]) or "no keywords"
        shares = f"{before[cluster]:.1%} of the {told.unit}"
        if after is not None:
            shares += f", {after[cluster]:.1%} of those drawn"
        name = f"{cluster} {', '.join(row['keywords'][:2])[:20]}".strip()
        dots.append(Dot(row["x"], row["y"], float(before[cluster]), None if after is None else float(after[cluster]),
                        name, f"cluster {cluster}: {words}; {shares}"))  # fmt: skip
    places = read_map(artifact)
    step = -(-max(1, places.num_rows) // MOST_POINTS)
    points = np.stack([places["x"].to_numpy(), places["y"].to_numpy()], axis=1)[::step]
    picture = scatter(
        dots,
        points=points,
        title=f"Map of {len(dots)} clusters; the table below lists them with their places",
        before=f"{told.unit} there are",
        after=None if after is None else f"{told.unit} drawn",
    )
    rings = "" if after is None else ", rings of what is drawn"
    caption = (
        f"Discs have the area of a cluster's share of what there is{rings}; small points are {len(points):,} documents."
        " The two axes are those in which the centroids differ most."
    )
    if len(held) > MOST_CLUSTERS:
        caption += f" The largest {MOST_CLUSTERS:,} of {len(held):,} clusters are shown."
    rows = [
        (c, f"{about[c]['x']:.3f}", f"{about[c]['y']:.3f}", f"{before[c]:.2%}",
         "–" if after is None else f"{after[c]:.2%}", tag("bdi", ", ".join(about[c]["keywords"][:6])))
        for c in held[:MOST_CLUSTERS]
    ]  # fmt: skip
    head = ("cluster", "x", "y", "share there is", "share drawn", "keywords")
    numbers = table(head, rows, caption="Places on the map", numeric=(1, 2, 3, 4))
    wide = tag("div", picture, class_="wide", tabindex="0", role="region", aria_label="Map of clusters")
    return Section("map", "Map of clusters", figure(wide, caption, numbers))
