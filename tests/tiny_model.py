"""A sentence-transformers model of some kilobytes with random weights, in the folder layout of the packaged MiniLM."""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SINGLE = [*string.punctuation, *string.digits, *string.ascii_lowercase, "é", "人"]
WORDS = ["the", "of", "and", "red", "green", "blue", "apple", "pear", "dog", "cat", "rust", "iron", "moon", "sun"]
VOCABULARY = [*SPECIAL, *SINGLE, *WORDS, *(f"##{c}" for c in string.ascii_lowercase)]
WIDTH = 16


def tiny_tokenizer() -> Tokenizer:
    """BERT's WordPiece over `VOCABULARY`, with padding and truncation on, as saved tokenizers have them."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_special_tokens([token for token in SPECIAL if token != "[unused0]"])
    tokenizer.enable_padding(length=8, pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(8)
    return tokenizer


def make_tiny_model(folder: Path) -> Path:
    """Write the model to `folder`: 2 layers, 16 wide, mean pooling, at most 64 tokens."""
    import torch
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            initializer_range=0.5,
        )
        BertModel(config).save_pretrained(str(folder))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    written = {
        "tokenizer_config.json": {**special, "tokenizer_class": "BertTokenizer", "model_max_length": 64},
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    }
    for name, value in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder
