"""Documents become vectors."""

from dataforge.embeddings.embed import embed
from dataforge.embeddings.embedders import EmbedConfig, embedders
from dataforge.embeddings.matrix import Matrix, MatrixPart

__all__ = ["EmbedConfig", "Matrix", "MatrixPart", "embed", "embedders"]
