"""Read-only views of artifacts: one subject a file, its numbers and its section of the report.

made        what was made, and that nothing was lost         tokenizer   bytes a token, scaffolds, how a text is cut
balance     clusters before and after balancing              training    loss, bits per byte, unigram and bigram
cluster_map clusters in two dimensions                       experts     tokens by layer and expert over the steps
mixture     sources and languages                            seconds     time and rate of every step

headline    the figures that sum a chain up                  report      all of it as one HTML file
"""

from dataforge.analysis.chain import Chain
from dataforge.analysis.headline import Figure, headline
from dataforge.analysis.report import report

__all__ = ["Chain", "Figure", "headline", "report"]
