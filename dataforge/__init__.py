"""dataforge: raw text to a balanced, exactly repeatable token stream, and a Mixture-of-Experts trainer at its end.

Each step reads whole artifacts and writes one; the rooms in the order of the chain:

    corpus       raw files -> numbered documents           tokenizers   Scaffold-BPE, BPE; encoded by rank or by LBPE
    dedup        leave out copies, by a bitmap             shards       tokens in document order, explicit ends
    embeddings   documents -> unit vectors                 rows         which token spans make training row i
    clusters     spherical k-means, keywords               streams      rows in plan order, from files or over HTTP
    plans        which document is draw number i           trainer      a Mixture-of-Experts decoder, resumable

    workspace, stage, make, runners     where artifacts live, what a step is, and how its missing parts are made
    moe, model                          routers behind one interface, experts, the decoder
    recipe, steps, cli                  one TOML file or one command for each step

`dataforge.services` (FastAPI) and `dataforge.pipelines` (Ray) are the two shells around it; nothing here imports them.
"""

from dataforge.workspace import Artifact, Workspace

__all__ = ["Artifact", "Workspace"]
__version__ = "0.1.0"
