"""A report about one model: what was measured and verified, beside reference networks, as one offline page and as JSON.

`lee report MODEL --images …` writes it. Each part is kept as soon as it is measured, so that an interrupted report goes on; the
page and its sentences are made from the JSON alone.
"""

from lee.reports.measuring import PARTS, Given, measured
from lee.reports.sentences import meaning
from lee.reports.writing import written

__all__ = ["PARTS", "Given", "meaning", "measured", "written"]
