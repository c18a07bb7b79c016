"""Where the entries of every tensor in a model lie in the image, followed through the operators of one forward pass.

A representation says how a generator moves a tensor. Its shape leaves that open (are 25 tokens a 5×5 grid, or 24 and a
class token?), so it is not guessed from the shape: the places of the image's pixels are carried through reshapes, window
partitions, convolutions, products and pools, and the representation is read off where they arrive. Grids are registered: a
sample of a layer that looks at a window sits at the window's middle, so every map has an origin and a spacing in the image
(:class:`lee.geometry.Registration`). Two maps on different grids, shifted or with up to twice the spacing, have the mean grid
where they are combined, entry by entry or side by side as channels; the difference counts as an error of the module that
combines them.
"""

from lee.layers.places.labels import MIXED, NONE, Given, Guess, Reading, Unknown, grid, of_representation, read
from lee.layers.places.tracker import (
    Follow,
    follow_nothing,
    forget,
    given_of,
    guesses_of,
    label,
    placed_image,
    places_of,
)

__all__ = [
    "MIXED", "NONE", "Given", "Guess", "Reading", "Unknown", "Follow", "follow_nothing", "forget", "given_of", "grid",
    "guesses_of", "label", "of_representation", "placed_image", "places_of", "read",
]  # fmt: skip
