"""Ways to turn texts into vectors, by name. One file each; torch and friends load only when one is opened."""

from dataforge.embeddings.embedders.embedder import EmbedConfig, Embedder, Encoder, embedders
from dataforge.embeddings.embedders.sentence_transformer import SentenceTransformerEmbedder
from dataforge.embeddings.embedders.static import StaticEmbedder

__all__ = [
    "EmbedConfig",
    "Embedder",
    "Encoder",
    "SentenceTransformerEmbedder",
    "StaticEmbedder",
    "embedders",
]
