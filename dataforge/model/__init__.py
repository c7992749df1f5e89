"""The decoder that is trained.

config         its shape, checked before anything is allocated
presets        shapes by name
decoder        embeddings, blocks, loss
attention      grouped queries, inside documents
documents      which document each position of a row belongs to
rope           rotary positions
cross_entropy  the loss without all logits
"""

from __future__ import annotations

from dataforge.model.config import ModelConfig
from dataforge.model.decoder import Decoder
from dataforge.model.documents import DocumentLayout, layout_of_segments, one_document
from dataforge.model.presets import model_config

__all__ = ["Decoder", "DocumentLayout", "ModelConfig", "layout_of_segments", "model_config", "one_document"]
