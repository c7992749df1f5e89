"""Text to token ids: Scaffold-BPE and BPE training, encoding by rank or longest first (LBPE).

>>> tokenizer = train(["the cat sat on the mat"] * 4, vocab_size=260)
>>> tokenizer.decode(tokenizer.encode("that cat"))
'that cat'
"""

from dataforge.tokenizers.tokenizer import Tokenizer
from dataforge.tokenizers.train import train
from dataforge.tokenizers.vocabulary import Vocabulary
from dataforge.tokenizers.word_counts import WordCounts, count

__all__ = ["Tokenizer", "Vocabulary", "WordCounts", "count", "train"]
