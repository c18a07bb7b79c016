"""Charts of the book: tidy frames or images in, an Altair chart or a grid of pictures out.

One theme serves light and dark pages: specs carry no colour of text or background, and the palette (Okabe
and Ito's, without its black and yellow) is safe for colour-blind readers on both. Every function needs a
`caption` (what the reader should see; Markdown and `$formulas$` are welcome) and an `alt` text (what a reader
who can't see it would be told). Numbers are rounded before they are drawn, so that a re-executed notebook
keeps its bytes.
"""

from lee.charts.fans import fans
from lee.charts.fields import VectorField, arrows, orbit
from lee.charts.landscape import Axis, landscape
from lee.charts.layers import cumulative, icicle
from lee.charts.maps import map_sheet, maps, overlaid
from lee.charts.matrices import heatmap
from lee.charts.mixtures import mixer
from lee.charts.page import listed, page, tabled
from lee.charts.pictures import Picture, pictures, tinted
from lee.charts.plots import bars, dots, intervals, lines, scatter
from lee.charts.tangents import tangents
from lee.charts.theme import DIVERGING, PALETTE, VEGALITE, Words, enable, finish, rounded
from lee.charts.turning import Scene, turning

__all__ = [
    # plots of tidy frames
    "lines", "scatter", "dots", "bars", "tangents", "mixer", "landscape", "Axis", "intervals",
    # matrices
    "heatmap",
    # decompositions into layers
    "icicle", "cumulative",
    # images and vector fields
    "pictures", "Picture", "tinted", "maps", "overlaid", "map_sheet", "arrows", "fans", "VectorField", "orbit", "turning", "Scene",
    # for a chart of one's own, or on a page of its own
    "page", "listed", "tabled", "finish", "Words", "rounded", "enable", "PALETTE", "DIVERGING", "VEGALITE",
]  # fmt: skip
