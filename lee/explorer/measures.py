r"""The numbers behind the explorer, each computed by :mod:`lee` and kept as long as nothing that decides it changes.

A slider of `t` moves along curves that are kept; one of the mixture needs one batch of warped images for each model; the local
equivariance error of every mixture follows from one Gram matrix, so it needs nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from torch import Tensor, nn

from lee import models
from lee.autodiff import pushforward
from lee.errors import InputError
from lee.explorer import motion, pictures
from lee.explorer.state import REACH, SLIDERS, State
from lee.geometry.generators import AnyGenerator
from lee.geometry.sampling import Sampler
from lee.layers import layerwise
from lee.measure.derivative import equivariance_gram
from lee.measure.function import one_function
from lee.measure.maps import error_map
from lee.measure.orbits import Orbit, orbit
from lee.measure.shares import ErrorMap
from lee.models import classes
from lee.models.recipes import has_recipe, has_weights, load_spec
from lee.statistics import EquivarianceGram, Estimate, concatenate

TOP = 5
"""Classes that have a curve."""

UNKNOWN_SIDE = 224
"""Side in pixels of the images for a model that doesn't say which it was made for."""

PORTION = 4
"""Images that are measured between two looks at the sliders."""

SMALL = 64
"""Up to this side the curves have 41 points, above it 11: warping a large image takes long."""

Kept = TypeVar("Kept")


class Cache:
    """The last `size` results, by what decides them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: OrderedDict[Hashable, Any] = OrderedDict()

    def has(self, key: Hashable) -> bool:
        """Whether there is a result under `key`; then it counts as the last one that was asked for."""
        if found := key in self.entries:
            self.entries.move_to_end(key)
        return found

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """The result kept under `key`, made now if there is none."""
        if not self.has(key):
            self.entries[key] = make()
            while len(self.entries) > self.size:
                self.entries.popitem(last=False)
        kept: Kept = self.entries[key]
        return kept


class Curve(NamedTuple):
    """The probabilities of one image along its path."""

    stops: tuple[float, ...]  # T values of `t`
    probabilities: Tensor  # (T, K)
    top: tuple[int, ...]  # the classes with the largest mean over the path, at most TOP, largest first
    names: tuple[str, ...]  # of all K classes


class Touch(NamedTuple):
    """Value `f(x_t)` and derivative `d/dt f(x_t)` of the probabilities at one `t`, (K,) each: the tangent of the curve."""

    value: Tensor
    slope: Tensor


class Measures:
    """What the explorer shows of a state. Results are kept, so asking again for the same costs nothing."""

    def __init__(self) -> None:
        self._models, self._sets = Cache(4), Cache(6)
        self._paths, self._curves, self._frames = Cache(8), Cache(32), Cache(32)
        self._grams, self._layers, self._orbits = Cache(4096), Cache(16), Cache(16)
        self._maps = Cache(4)  # of 81 numbers for each pixel

    def model(self, state: State, which: int = 0) -> models.Normalized:
        """The model of a state by its number, in eval mode.

        Raises:
            InputError: An unknown name, or weights that can't be had.
        """
        name = state.models[which]
        pretrained = state.pretrained and not has_weights(name)
        return self._models.get((name, pretrained), lambda: models.load(name, pretrained=pretrained))

    def side(self, state: State, which: int = 0) -> int:
        """Side in pixels of the images that a model of the state takes."""
        return models.input_size(self.model(state, which)) or UNKNOWN_SIDE

    def images(self, state: State, side: int) -> Tensor:
        """The images of the state's data set: (n, 3, side, side)."""
        return self._set(state, side)[0]

    def titles(self, state: State) -> tuple[str, ...]:
        """The classes of the data set's images in words, as far as they are known."""
        return self._set(state, self.side(state))[1]

    def _set(self, state: State, side: int) -> tuple[Tensor, tuple[str, ...]]:
        return self._sets.get((state.images, side), lambda: pictures.load(state.images, side))

    def image(self, state: State, which: int = 0) -> Tensor:
        """The chosen image as a model takes it: (1, 3, side, side). A second model gets the image of the first, resized.

        Raises:
            InputError: An upload that is no picture, a data set that can't be had, or an index that it doesn't have.
        """
        first, side = self.side(state), self.side(state, which)
        if state.upload is not None:
            content = state.upload
            return self._sets.get((content, side), lambda: pictures.decode(content, side))
        every = self.images(state, first)
        if state.index >= len(every):
            raise InputError(f"{state.images!r} has {len(every)} images here; there is no index {state.index}.")
        return pictures.resized(every[state.index : state.index + 1], side)

    def sampler(self, state: State, side: int) -> Sampler:
        """How the state's images are interpolated."""
        return Sampler(**state.sampling).for_image(side, side)

    def frame(self, state: State, which: int = 0) -> tuple[Tensor, Tensor]:
        """The image at `t` and its velocity there, the tangent image: (1, 3, side, side) each."""
        side = self.side(state, which)
        key = (state.origin, self.side(state), side, state.mixture, state.t, state.kernel, state.boundary)
        sampler = self.sampler(state, side)
        return self._frames.get(
            key, lambda: motion.velocity(self.image(state, which), state.generator, state.t, sampler)
        )

    def stops(self, side: int) -> tuple[float, ...]:
        """The values of `t` at which the curves of images of this side are computed, 0 among them."""
        steps = 20 if side <= SMALL else 5
        return tuple(round(REACH * k / steps, 9) for k in range(-steps, steps + 1))

    def path(self, state: State, which: int = 0) -> Tensor:
        """The image at every stop: (T, 3, side, side)."""
        side = self.side(state, which)
        key = (state.origin, self.side(state), side, state.mixture, state.kernel, state.boundary)
        sampler, stops = self.sampler(state, side), self.stops(side)
        return self._paths.get(key, lambda: motion.path(self.image(state, which), state.generator, stops, sampler))

    def _moved(self, state: State, which: int) -> tuple[Hashable, ...]:
        """All that one model's answers to one image under one motion depend on."""
        return self._key(state, which, state.origin), state.mixture

    def curve(self, state: State, which: int = 0) -> Curve:
        """The probabilities along the path: one batch through the model, kept for every `t`."""
        return self._curves.get(self._moved(state, which), lambda: self._curve(state, which))

    def _curve(self, state: State, which: int) -> Curve:
        network, orbit = self.model(state, which), self.path(state, which)
        with one_function(network, "probabilities") as function:
            p = function.checked(orbit)
        top = p.mean(0).topk(min(TOP, p.shape[1])).indices.tolist()
        names = class_names(state.models[which], state.pretrained, p.shape[1])
        return Curve(self.stops(orbit.shape[-1]), p, tuple(top), names)

    def touch(self, state: State, which: int = 0) -> Touch:
        r"""The probabilities at `t` and their derivative there, exactly, by forward mode through the warp and the model.

        It is :math:`\frac{d}{ds} f(\exp(sX)\,x)` at :math:`s = t`, the slope of the curve that is drawn. As
        :math:`\exp((t + h) X)\,x = \exp(hX)(\exp(tX)\,x)`, it is the Lie derivative at the transformed image, up to
        what resampling a sampled image loses; at `t = 0` it is :func:`lee.lie_derivative` itself.
        """
        network = self.model(state, which)
        moved, speed = self.frame(state, which)
        with one_function(network, "probabilities") as function:
            value, lanes = pushforward(function, moved, speed[None])
        if lanes is None:
            raise InputError(f"The output of {state.models[which]} does not depend on its input.")
        return Touch(value[0], lanes[0, 0])

    def _key(self, state: State, which: int, origin: Hashable) -> Hashable:
        return (state.models[which], state.pretrained, origin, self.side(state), state.kernel, state.boundary)

    def _gram(self, state: State, which: int, images: Tensor) -> EquivarianceGram:
        """Gram matrices over :data:`SLIDERS`: every mixture's error follows from them."""
        return equivariance_gram(self.model(state, which), images, generators=SLIDERS, progress=False, **state.sampling)

    def error_here(self, state: State, which: int = 0) -> Estimate:
        """The local equivariance error of the chosen image alone, which has no standard error."""
        key = self._key(state, which, state.origin)
        return self._grams.get(key, lambda: self._gram(state, which, self.image(state, which))).lee(state.generator)

    def error_steps(self, state: State, which: int = 0) -> Iterator[int]:
        """Measure what is missing of the set, :data:`PORTION` images at a time.

        Yields:
            How many are done, so that the work can be given up in between.
        """
        every, side, count = self.images(state, self.side(state)), self.side(state, which), self.count(state)
        keys = [self._key(state, which, (state.images, index)) for index in range(count)]
        missing = [index for index in range(count) if not self._grams.has(keys[index])]
        for start in range(0, len(missing), PORTION):
            chosen = missing[start : start + PORTION]
            found = self._gram(state, which, pictures.resized(every[chosen], side))
            for index, per_image in zip(chosen, found.per_image, strict=True):
                self._grams.get(keys[index], partial(replace, found, per_image=per_image[None]))
            yield count - len(missing) + start + len(chosen)

    def count(self, state: State) -> int:
        """Images behind the error of the set: `n`, or as many as there are."""
        return min(state.n, len(self.images(state, self.side(state))))

    def error(self, state: State, which: int = 0) -> Estimate:
        """The local equivariance error over the first `n` images of the data set, with its standard error."""
        for _ in self.error_steps(state, which):
            pass
        keys = (self._key(state, which, (state.images, index)) for index in range(self.count(state)))
        return concatenate([self._grams.entries[key] for key in keys]).lee(state.generator)

    def map(self, state: State, which: int = 0) -> ErrorMap:
        """Which pixels of the original image hold the error: :func:`lee.error_map`, kept for every mixture."""

        def measured() -> ErrorMap:
            return error_map(self.model(state, which), self.image(state, which), SLIDERS, **state.sampling)

        return self._maps.get(self._key(state, which, state.origin), measured).along(state.generator)

    def patch(self, state: State, which: int = 0) -> int:
        """Side of the patches of a model's map: the state's, or that of its tokens (without any, an eighth of the image)."""
        return state.patch or token_side(self.model(state, which)) or max(1, self.side(state, which) // 8)

    def orbit(self, state: State, which: int = 0) -> Orbit:
        """Outputs and derivatives along the path: :func:`lee.orbit` of the chosen image, as far as the state's reach."""
        image = self.image(state, which)
        stops = tuple(stop * state.reach / REACH for stop in self.stops(image.shape[-1]))
        generator, how = state.generator, state.sampling
        path: AnyGenerator = generator if len(motion.parts(generator)) == 1 else motion.action(generator, **how)
        key = (*self._moved(state, which), state.reach)
        return self._orbits.get(key, lambda: orbit(self.model(state, which), image, path, stops, **how))

    def layers(self, state: State, which: int = 0) -> pd.DataFrame:
        """The exact contribution of every layer to the Lie derivative at the original image: `frame` of :func:`lee.layerwise`."""

        def measured() -> pd.DataFrame:
            network, image = self.model(state, which), self.image(state, which)
            return layerwise(network, image, state.generator, **state.sampling).frame

        return self._layers.get(self._moved(state, which), measured)


def class_names(model: str, pretrained: bool, k: int) -> tuple[str, ...]:
    """Names of the K classes of a model: CIFAR-10's, ImageNet's for models trained on it, or numbers."""
    known: tuple[str, ...] = ()
    if has_recipe(model):
        known = classes.TRAINED_ON.get(load_spec(model).recipe.dataset, ())
    elif pretrained or has_weights(model):
        known = classes.described(classes.imagenet())
    return known if len(known) == k else tuple(f"class {i}" for i in range(k))


def token_side(network: nn.Module) -> int | None:
    """Side in pixels of the patches that a transformer or Mixer makes its tokens of; None for other networks."""
    sides = (getattr(module, "patch_size", None) for module in network.modules())
    side = next(filter(None, sides), None)
    return int(side[0]) if isinstance(side, tuple) else side
