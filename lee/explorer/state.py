r"""What the explorer shows, as one frozen value: image, models, mixture of generators, amount, kernel and boundary.

The sliders of a mixture belong to nine generators that span the same algebra as `lee.geometry.generators.BASIS`, but read more
easily: rotation and hyperbolic in place of the two shears, scale and squeeze in place of the two stretches.
"""

from dataclasses import dataclass, field
from typing import Any

from lee.errors import InputError, check_known
from lee.geometry.algebra import coordinates
from lee.geometry.generators import NAMED, PHOTOMETRIC, ROTATION, TRANSLATION_X, Generator
from lee.geometry.interpolation import BOUNDARIES
from lee.measure.spectrum import ORTHOGONAL

SLIDERS = (*ORTHOGONAL, *PHOTOMETRIC)
"""The generators that have a slider each."""

KERNELS = ("fourier", "central")
"""Kernels with a derivative as well as a finite warp."""

REACH = 0.5
"""The amount `t` goes from minus this to this."""

MOST_MODELS = 2

PATCHES = (0, 1, 2, 4, 8, 16)
"""Sides in pixels of the patches of an error map; 0 for those that the model makes its tokens of."""

REACHES = (REACH, 0.2, 0.05, 0.02)
"""How far an orbit may be followed."""


def mixture_of(generator: Generator) -> tuple[float, ...]:
    """The positions of the nine sliders that give `generator`.

    Args:
        generator: In the span of the sliders, as every combination of the nine basis fields is.

    Examples:
        >>> mixture_of(NAMED["shear_x"])
        (0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0)
    """
    return tuple(round(float(c), 9) + 0.0 for c in coordinates(generator, SLIDERS))


@dataclass(frozen=True)
class State:
    """Everything that decides what the explorer shows. Equal states show the same.

    Args:
        images: A name that :func:`lee.datasets.load` knows.
        index: Which image of it, from 0.
        upload: The content of an image file to be shown instead.
        models: One or two names: of trained networks such as `zoo/vit-s`, or of timm's.
        pretrained: Whether models of timm have timm's own weights (downloaded by timm), or random ones.
        mixture: Coefficients of :data:`SLIDERS`.
        t: The amount, from -:data:`REACH` to :data:`REACH`, in units of the generator.
        kernel: One of :data:`KERNELS`.
        boundary: One of `lee.geometry.BOUNDARIES`.
        n: Images behind the local equivariance error, 2 or more.
        patch: Side of the patches of the error map, one of :data:`PATCHES`.
        reach: How far the orbit is followed on either side, one of :data:`REACHES`.

    Raises:
        InputError: For an unknown kernel or boundary, a number that is out of range or not among those named, no or too many
            models, a model that is neither of the zoo nor of timm, or a mixture of zeros.
    """

    images: str = "patches"
    index: int = 0
    upload: bytes | None = field(default=None, repr=False)
    models: tuple[str, ...] = ("zoo/resnet-s",)
    pretrained: bool = False
    mixture: tuple[float, ...] = mixture_of(ROTATION)
    t: float = 0.0
    kernel: str = "fourier"
    boundary: str = "reflect"
    n: int = 16
    patch: int = 0
    reach: float = REACH

    def __post_init__(self) -> None:
        check_known("kernel", self.kernel, KERNELS)
        check_known("boundary", self.boundary, BOUNDARIES)
        if not 1 <= len(self.models) <= MOST_MODELS:
            raise InputError(f"The explorer shows one or two models, not {len(self.models)}.")
        for name in self.models:
            if not name or ":" in name:
                raise InputError(
                    f"{name!r} is no model of the explorer: give a name of `lee models list` or one that timm knows."
                )
        if len(self.mixture) != len(SLIDERS):
            raise InputError(f"A mixture has {len(SLIDERS)} coefficients; got {len(self.mixture)}.")
        if not any(self.mixture):
            raise InputError("All sliders of the mixture stand at zero, so nothing moves. Move one of them.")
        if not abs(self.t) <= REACH:
            raise InputError(f"The amount t = {self.t:g} is out of range: -{REACH:g} to {REACH:g}.")
        if self.index < 0 or self.n < 2:
            raise InputError(f"The index starts at 0, and n at 2; got {self.index} and {self.n}.")
        for name, value, known in (("patch", self.patch, PATCHES), ("reach", self.reach, REACHES)):
            if value not in known:
                raise InputError(f"{name} = {value:g} is not among {', '.join(f'{one:g}' for one in known)}.")

    @property
    def generator(self) -> Generator:
        """The mixture as a generator: one of the named ones if it is that, otherwise named after its parts."""
        moving = [(c, g) for c, g in zip(self.mixture, SLIDERS, strict=True) if c]
        columns = zip(*([c * v for v in g.coefficients] for c, g in moving), strict=True)
        coefficients = tuple(round(sum(column), 9) for column in columns)
        for named in NAMED.values():
            if named.coefficients == coefficients:
                return named
        name = " + ".join(g.name if c == 1 else f"{c:.4g}*{g.name}" for c, g in moving)
        units = {g.unit for _, g in moving}
        return Generator(name, coefficients, units.pop() if len(units) == 1 else "t")

    @property
    def sampling(self) -> dict[str, Any]:
        """How images are interpolated, as keyword arguments."""
        return {"kernel": self.kernel, "boundary": self.boundary}

    @property
    def origin(self) -> tuple[object, ...]:
        """What decides which image is shown."""
        return (self.upload,) if self.upload is not None else (self.images, self.index)


START = State(images="photos", index=2, models=("imagenet/efficientnet-lite0",), kernel="central", n=2)
"""What the app shows at first, where the weights are installed (the extra `imagenet`). Its kernel is the quicker one."""

PRESETS = {
    "ResNet against ViT under rotation": State(index=3, models=("zoo/resnet-s", "zoo/vit-s")),
    "ResNet against Mixer under a shift": State(
        index=3, models=("zoo/resnet-s", "zoo/mixer-s"), mixture=mixture_of(TRANSLATION_X)
    ),
    "ResNet with and without BlurPool under a shift": State(
        index=3, models=("zoo/resnet-t", "zoo/resnet-t-blur"), mixture=mixture_of(TRANSLATION_X)
    ),
    "A network of ImageNet on a photograph": START,
}
"""States to begin with, by what they show."""
