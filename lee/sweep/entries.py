"""What may stand in a sweep's file: the fields, and the options of each measure, with their ranges and defaults."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from lee.configuration import Listed, Strict
from lee.datasets.loading import MOST_SIDE
from lee.errors import nearest
from lee.geometry.generators import AFFINE, NAMED, PHOTOMETRIC
from lee.geometry.interpolation import BOUNDARIES, KERNELS
from lee.measure.checks import OUTPUTS as NAMED_OUTPUTS
from lee.sweep.subjects import epoch_of

#: Weights that a model is measured with: as trained, or as first drawn; those after an epoch are `epoch 1`, `epoch 2`, ...
WEIGHTS = ("trained", "initial")
#: What is differentiated.
OUTPUTS = (*NAMED_OUTPUTS, "features")
SPLITS = ("train", "test")
GROUPS = {"affine": AFFINE, "photometric": PHOTOMETRIC, "all": AFFINE + PHOTOMETRIC}


def _known(what: str, names: Iterable[str], also: Callable[[str], object] = lambda name: False) -> AfterValidator:
    """A name among some, or one that a function knows."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known and not also(name):
            raise ValueError(f"unknown {what} {name!r}.{nearest(name, known)}")
        return name

    return AfterValidator(check)


def _named(given: Any) -> Any:
    """Measures as a mapping from names to options; a list of names takes the defaults."""
    if isinstance(given, Mapping):
        return {name: {} if options is None else options for name, options in given.items()}
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return {name: {} for name in names}
    return given


def _generators(given: Any) -> Any:
    """A group's names, or those that are listed; None for `none`."""
    if given == "none":
        return None
    if isinstance(given, str) and given in GROUPS:
        return tuple(g.name for g in GROUPS[given])
    return () if given is None else tuple(given) if isinstance(given, list) else (given,)


def _distinct(names: Any) -> Any:
    """Names of generators, refused if one stands twice: it would count twice in every sum over them."""
    if twice := next((name for name in names or () if names.count(name) > 1), None):
        raise ValueError(f"{twice!r} stands twice. Name each generator once.")
    return names


Split = Annotated[str, _known("split", SPLITS)]
GeneratorName = Annotated[str, _known("generator", [*NAMED, *GROUPS])]
Generators = Annotated[list[GeneratorName], Field(min_length=1), AfterValidator(_distinct)]
Draws = Annotated[int, Field(ge=1, le=10_000)]
#: A number as it was written: a key tells 180 from 180.0, and a validated float is always the latter.
Number = Annotated[float, WrapValidator(lambda given, check: (check(given), given)[1])]


class Consistency(Strict):
    """Options of `lee.metrics.consistency`."""

    shifts: Draws = 4
    max_shift: int = Field(4, ge=1)
    boundary: Annotated[str, _known("boundary", BOUNDARIES)] = "reflect"
    reference: Annotated[str, _known("reference", ("pair", "image"))] = "image"


class Shifts(Strict):
    """Options of `lee.metrics.eq_t` and `eq_t_frac`."""

    draws: Draws = 4
    max_shift: float = Field(0.125, gt=0, lt=1)


class Turns(Strict):
    """Options of `lee.metrics.eq_r`; the angle in degrees."""

    draws: Draws = 4
    max_angle: Number = Field(180.0, gt=0, le=360)


class Yardsticks(Strict):
    """How many of the first images."""

    images: int = Field(200, ge=2)


class Distance(Strict):
    """From which images: as for `lee.datasets.load`."""

    images: int = Field(200, ge=4)
    dataset: str | None = None
    split: Split = "train"
    seed: int = Field(1, ge=0)


class Accuracy(Strict):
    """How many images; None for the whole data set."""

    images: int | None = Field(None, ge=1)


class Aliasing(Strict):
    """Options of `lee.layers.aliased_part`, and how many of the first images."""

    images: int = Field(200, ge=1)
    generators: Generators = Field(["translation_x", "translation_y"])
    factor: int = Field(2, ge=2)


class Moved(Strict):
    """Two sets of generators."""

    generators: Generators = Field(["translation_x", "translation_y", "rotation"])
    other: Generators = Field(["scale", "hyperbolic", "squeeze"])


class Turntable(Strict):
    """How many of the first images, and the degrees from one angle to the next."""

    images: int = Field(200, ge=1)
    step: int = Field(5, ge=1, le=180)


class Plain(Strict):
    """No options."""


class Measures(Strict):
    """What is measured beside the Gram matrix: see `lee.sweep.quantities`."""

    consistency: Consistency = Consistency()
    eq_t: Shifts = Shifts()
    eq_t_frac: Shifts = Shifts()
    eq_r: Turns = Turns()
    yardsticks: Yardsticks = Yardsticks()
    distance: Distance = Distance()
    accuracy: Accuracy = Accuracy()
    aliasing: Aliasing = Aliasing()
    moved: Moved = Moved()
    turntable: Turntable = Turntable()
    absolute: Plain = Plain()
    deviation: Plain = Plain()


class Entry(Strict):
    """One measurement, or what all share: the fields of `lee.sweep.Measurement`, some of them as lists."""

    dataset: Listed[str] = Field([])
    split: Listed[Split] = Field([])
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(0, ge=0)
    size: int | None = Field(None, ge=1, le=MOST_SIDE)
    weights: Listed[Annotated[str, _known("weights", WEIGHTS, epoch_of)]] = Field([])
    generators: Annotated[
        tuple[GeneratorName, ...] | None, BeforeValidator(_generators), AfterValidator(_distinct)
    ] = ()
    output: Listed[Annotated[str, _known("output", OUTPUTS)]] = Field([])
    kernel: Listed[Annotated[str, _known("kernel", KERNELS)]] = Field([])
    boundary: Listed[Annotated[str, _known("boundary", BOUNDARIES)]] = Field([])
    align_corners: bool = False
    measures: Annotated[Measures, BeforeValidator(_named)] = Measures()

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the file names; of each measure all options."""
        found = {name: getattr(self, name) for name in self.model_fields_set}
        if "measures" in found:
            chosen = sorted(self.measures.model_fields_set)
            found["measures"] = {name: getattr(self.measures, name).model_dump() for name in chosen}
        return found


def _entries(given: Any) -> Any:
    return given if isinstance(given, list) else [{} if given is None else given]


class File(Strict):
    """A sweep's file."""

    models: Listed[str]
    families: Listed[str] | None = None
    defaults: Annotated[Entry, BeforeValidator(lambda given: {} if given is None else given)] = Entry()
    measurements: dict[str, Annotated[list[Entry], BeforeValidator(_entries), Field(min_length=1)]]
