r"""The discrete errors of equivariance of every module call, with both normalisations.

With `S` the sum of squared differences over the `N` entries of an output that stay in view, papers report `S / N` (a mean
square) or `S / √N`. The first makes a large map as important as a small one, the second weighs it by `√N`.

As in the paper, every map is taken to cover the image evenly, so that a shift by whole samples is one of its grid.

Source: Gruver et al., ICLR 2023, Fig. 4 right, compares both with LEE, for each module on its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from lee import memory
from lee.errors import InputError, check_count, check_known
from lee.geometry.generators import Action, AnyGenerator
from lee.geometry.outputs import Representations
from lee.geometry.representations import Image, Representation
from lee.geometry.sampling import Sampler
from lee.layers.calls import Call, Watch, check_modules
from lee.layers.nested import changed, tensors
from lee.layers.readings import Overrides
from lee.layers.trace import Traced, check_call, hooks_of, trace_alike
from lee.measure.checks import check_input
from lee.measure.function import Function, one_function
from lee.measure.looking import looked_at
from lee.measure.state import ModuleState, RandomState
from lee.metrics.errors import compare, moved
from lee.metrics.motion import Motion, as_motions, grid_of, whole_samples
from lee.statistics import Estimate

SCOPES = ("module", "features")


class _Tally:
    """Squared differences of every call, (T, N), and how many entries were compared, (T,)."""

    def __init__(self, motions: int, images: int) -> None:
        self.shape = (motions, images)
        self.squares: dict[int, Tensor] = {}
        self.counts: dict[int, Tensor] = {}

    def add(self, call: int, motion: int, images: Tensor, squares: Tensor, count: float) -> None:
        """Enter the differences of a batch of images."""
        zero = torch.zeros(self.shape, dtype=torch.float64)
        self.squares.setdefault(call, zero)[motion, images] = squares
        self.counts.setdefault(call, zero[:, 0].clone())[motion] = count

    def row(self, call: int) -> dict[str, float]:
        """`n`, `mean` = S / N and `root` = S / √N with their standard errors; NaN where nothing stays in view."""
        missing = dict.fromkeys(("n", "mean", "mean_se", "root", "root_se"), float("nan"))
        if call not in self.squares or not self.counts[call].sum() > 0:
            return missing
        used = self.counts[call] > 0
        counts, squares = self.counts[call][used, None], self.squares[call][used]
        mean, root = Estimate.of((squares / counts).mean(0)), Estimate.of((squares / counts.sqrt()).mean(0))
        return {
            "n": float(counts.mean()), "mean": mean.value, "mean_se": mean.stderr,
            "root": root.value, "root_se": root.stderr,
        }  # fmt: skip


def _first(output: Any) -> Tensor | None:
    found = tensors(output)
    return found[0] if found else None


def _representations(traced: Traced) -> tuple[list[Representation], Representation] | None:
    """How the inputs and the first output of a call transform; None where that is not known, or not all that goes in."""
    if traced.hidden or not traced.outputs or traced.outputs[0].representation is None:
        return None
    given = [r.representation for r in traced.inputs]
    known = [r for r in given if r is not None]
    return (known, traced.outputs[0].representation) if len(known) == len(given) else None


def _everything(result: Any) -> Tensor:
    """All that a model returns for each image, (N, D): what must be one function of it."""
    found = [v for v in pytree.tree_leaves(result) if isinstance(v, Tensor)] or tensors(result)
    found = [v for v in found if v.ndim and len(v) == len(found[0])]
    if not found:
        raise InputError(
            f"The model must return tensors with one entry per image; it returned {type(result).__name__}."
        )
    real = [torch.view_as_real(v) if v.is_complex() else v if v.is_floating_point() else v.float() for v in found]
    return torch.cat([v.reshape(len(v), -1) for v in real], 1)


def _folds(function: Function, model: nn.Module, image: Tensor) -> bool:
    """Whether a tensor of some call doesn't have the batch as its first axis, so that images could mix in it."""
    found: list[bool] = []

    def look(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found.extend(v.ndim == 0 or len(v) != 1 for v in tensors((args, kwargs, output)))

    with Watch(model, after=look):
        function.value(image)
    return any(found)


class _Measurement:
    """One run of :func:`layer_errors`: the calls of a model, and where their differences are entered."""

    def __init__(
        self, function: Function, model: nn.Module, images: Tensor, motions: list[Motion], sampler: Sampler, margin: int,
        band_limit: bool, whole: bool, representations: Representations,
    ) -> None:  # fmt: skip
        self.function, self.model, self.motions, self.sampler = function, model, motions, sampler
        self.margin, self.band_limit, self.whole = margin, band_limit, whole
        self.calls = trace_alike(model, images, overrides := Overrides(representations), centred=True)
        overrides.check_used([t.call.path for t in self.calls])
        self.tally = _Tally(len(motions), len(images))

    @torch.no_grad()
    def _enter(
        self, call: int, k: int, motion: Motion, index: Tensor, actual: Tensor, value: Tensor, kind: Representation
    ) -> None:
        wanted = moved(motion, value, kind, self.sampler, output=True)
        squares, count = compare(len(index), actual, wanted, kind, motion, self.sampler, self.margin, self.band_limit)
        if not bool(squares.isfinite().all()):
            named = self.calls[call].call.name
            raise InputError(
                f"The module {named} gives NaN or infinity as {motion.generator.name} moves an image: no number."
            )
        self.tally.add(call, k, index, squares, count)

    def _kept(self, module: nn.Module) -> Callable[[], None]:
        """What puts random numbers and a module back to where they are now, as far as the model draws or changes them."""
        numbers = RandomState(self.function.roots) if self.function.random else None
        state = ModuleState([module]) if self.function.changes else None

        def restore() -> None:
            if numbers is not None:
                numbers.restore()
            if state is not None:
                state.restore(hooks=False)

        return restore

    def modules(self, x: Tensor, index: Tensor) -> None:
        """`m(ρ h) - ρ m(h)` of every call that contains no other, at its own input `h`."""
        given: dict[int, tuple[Any, Callable[[], None]]] = {}

        def before(call: Call, module: nn.Module, args: Any, kwargs: Any) -> None:
            check_call(call, self.calls)
            if self.calls[call.index].leaf:  # a copy: the module may write into its input
                given[call.index] = changed((args, kwargs), lambda v, _: v.clone()), self._kept(module)

        def after(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            known = _representations(self.calls[call.index])
            before_it, value = given.pop(call.index, None), _first(output)
            if before_it is None or known is None or value is None:
                return
            (stored, start), go_on, value = before_it, self._kept(module), value.clone()
            inputs = list(zip(known[0], tensors(stored), strict=True))
            with watch.again(call.index):
                for k, motion in enumerate(self._own(inputs, (known[1], value))):
                    start()  # each time the same function
                    again = _first(self._again(module, stored, known[0], motion))
                    if again is not None:
                        self._enter(call.index, k, motion, index, again, value, known[1])
            go_on()

        with Watch(self.model, before, after, hooks_of(self.calls)) as watch:
            self.function.checked(x)

    def _own(self, inputs: list[tuple[Representation, Tensor]], output: tuple[Representation, Tensor]) -> list[Motion]:
        """The motions of one call's tensors."""
        grids = [g for kind, z in (*inputs, output) if (g := grid_of(kind, z)) is not None]
        return [whole_samples(m, grids, self.sampler) for m in self.motions] if self.whole and grids else self.motions

    def _again(self, module: nn.Module, stored: Any, known: list[Representation], motion: Motion) -> Any:
        """The module's output for moved inputs."""
        args, kwargs = changed(stored, lambda v, i: moved(motion, v, known[i], self.sampler))
        return module(*args, **kwargs)

    def features(self, x: Tensor, index: Tensor) -> None:
        """`h_m(ρ x) - ρ h_m(x)` of the output `h_m` of every call, for the moved image."""
        still: dict[int, Tensor] = {}

        def keep(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            check_call(call, self.calls)
            value, known = _first(output), self.calls[call.index].outputs
            if value is not None and known and known[0].representation is not None:
                still[call.index] = value.clone()  # a later module may write into it

        with Watch(self.model, after=keep, hooks=hooks_of(self.calls)):
            self.function.checked(x)
        for k, motion in enumerate(self.motions):

            def enter(call: Call, module: nn.Module, args: Any, kwargs: Any, output: Any, k: int = k) -> None:
                check_call(call, self.calls)
                if call.index in still:
                    representation = self.calls[call.index].outputs[0].representation
                    assert representation is not None
                    actual, value = tensors(output)[0], still[call.index]
                    self._enter(call.index, k, self.motions[k], index, actual, value, representation)

            with Watch(self.model, after=enter, hooks=hooks_of(self.calls)):
                self.function.checked(moved(motion, x, Image(), self.sampler))

    def frame(self) -> pd.DataFrame:
        """One row per call in order of execution."""
        rows = [
            {"path": t.call.path, "type": t.call.type, "call": t.call.call, "depth": t.call.depth, "leaf": t.leaf}
            | self.tally.row(t.call.index)
            for t in self.calls
        ]
        return pd.DataFrame(rows)


def layer_errors(
    model: nn.Module,
    images: Tensor,
    motions: Sequence[Motion | tuple[AnyGenerator, float]],
    *,
    scope: str = "module",
    kernel: str = "fourier",
    boundary: str = "reflect",
    margin: int = 0,
    band_limit: bool = False,
    whole: bool = False,
    representations: Representations = None,
    chunk: int = 16,
) -> pd.DataFrame:
    """Discrete errors of equivariance of every module call, normalised by `N` and by `√N`.

    Source: Gruver, Finzi, Goldblum & Wilson, ICLR 2023, Fig. 4 (right), for each module on its own.

    Args:
        model: Any module; measured in eval mode and left as it was.
        images: (N, C, H, W), floating point.
        motions: Finite motions, from :func:`translations`, :func:`rotations` or :func:`amounts`; not of a user's action, which says
            nothing of hidden layers.
        scope: `"module"`: each call that contains no other, on its own: its own input is moved (Gruver et al., Fig. 4
            right). `"features"`: the image is moved, and the output of every call is compared, so that errors add up along
            the network.
        kernel: Interpolation kernel of the finite motions.
        boundary: What the motion brings in from outside: `"reflect"` or `"circular"`.
        margin: Samples along the border of each map to leave out beside those that come from outside.
        whole: For `"module"` and translations: move each call's tensors by whole samples of the coarser of its grids, so that
            nothing is interpolated. The same fraction of the side is then another shift for another layer, or none at all.
        band_limit: Compare only the frequencies that every rotation leaves on the grid.
        representations: Overrides by pattern of module path, as for the layer-wise decomposition.
        chunk: Images per pass; 1 is used for models that fold anything into the batch axis, as Swin its windows, or are random.

    Returns:
        One row per call, in order of execution: `path`, `type`, `call`, `depth`, `leaf`, `n` (entries compared, per image),
        `mean` and `mean_se` (S / N and its standard error over images), `root` and `root_se` (S / √N). NaN where a call isn't
        measured: its tensors have no known place, nothing stays in view, or (`"module"`) it contains others.

    Raises:
        InputError: For input that can't be measured; the message says why.
    """
    check_known("scope", scope, SCOPES)
    if whole and scope != "module":
        raise InputError("`whole` goes with scope='module': one shift of the image can't be whole on every grid.")
    check_count("margin", margin, 0)
    check_count("chunk", chunk)
    steps, inner = as_motions(motions), check_modules(model)
    if any(isinstance(m.generator, Action) for m in steps):
        raise InputError(
            "Layers need affine or photometric motions; an action (x, t) -> x says nothing of hidden layers."
        )
    check_input(inner, images, image=True)
    sampler = Sampler(kernel, boundary).for_image(*images.shape[-2:])
    with memory.kept(), one_function(inner, _everything) as function, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        looked_at(function, images, chunk)
        if function.needs_graph:
            raise InputError(
                "The model differentiates inside itself, where its layers can't be followed; measure the whole model with "
                "lee.metrics.differences."
            )
        run = _Measurement(function, inner, images, steps, sampler, margin, band_limit, whole, representations)
        at_once = 1 if function.one_by_one or _folds(function, inner, images[:1]) else chunk
        for index in torch.arange(len(images)).split(at_once):
            (run.modules if scope == "module" else run.features)(images[index], index)
    return run.frame()
