"""Copies of documents: found, listed with the copy that is kept, and left out by a bitmap. No text is rewritten."""

from dataforge.dedup.dedup import DedupConfig, dedup

__all__ = ["DedupConfig", "dedup"]
