"""Pictures as inline SVG: sharp at any size, in the page's colours in light and dark, with a text for each mark."""

from dataforge.analysis.charts.bars import Pair, paired_bars
from dataforge.analysis.charts.lines import Level, Series, lines
from dataforge.analysis.charts.pixels import heat_map
from dataforge.analysis.charts.ranked import ranked
from dataforge.analysis.charts.scatter import Dot, scatter

__all__ = ["Dot", "Level", "Pair", "Series", "heat_map", "lines", "paired_bars", "ranked", "scatter"]
