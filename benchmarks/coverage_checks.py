"""What is checked of one model: derivative, decomposition, and that nothing is left changed.

- `derivative`: the Lie derivatives along a mixture of all affine generators and along contrast against central differences
  of the finite action, `(f(exp(hX)x) - f(exp(-hX)x)) / 2h`, and the all-generators Gram matrix against both;
- `identity`: the self terms of the decomposition sum to the total, the total is that of the Gram matrix, and the sum is that
  of torch's own forward mode;
- `untouched`: parameters, buffers, training flags, hooks, `requires_grad`, attributes and the random state are as before.

Everything in float64. The steps h are 1e-7, 1e-9 and 1e-11, and the one that agrees best counts. Of their errors the flow's
curvature makes 1e-14 at most, and rounding 1e-16 / h for a network whose output changes as fast as the image. What remains are
kinks (ReLU, hard swish, max-pooling) within the step: a few units in a million in a network of slow changes, but many in one
that multiplies changes by a million, as random networks of many layers do. They are fewer for a smaller step, while a wrong
derivative is wrong for every step. Hence the tolerance of 1e-4. That of the identity, 1e-6, is rounding, multiplied as much.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lee
from lee.autodiff import record_fallbacks
from lee.geometry.representations import Image, Representation, Trivial
from lee.geometry.sampling import Sampler
from lee.measure.checks import Output, select
from lee.provenance import weights_sha256

STEPS, DIFFERENCE, IDENTITY = (1e-7, 1e-9, 1e-11), 1e-4, 1e-6
#: Why a family does not pass.
REMARKS = {
    "deepseek_vit": "its norms compute in single precision whatever they are given (`RmsNormFp32`), so that differences by "
    "small steps are rounded away. One of three blocks and 128 channels agrees with differences by a step of 1e-4 to 1.5e-4, "
    "and with backward passes to 6e-8",
    "efficientvit_mit": "its attention computes in single precision whatever it is given. It agrees with differences by a step "
    "of 1e-5 to 3e-4, and with backward passes to 4e-7",
}
MIXTURE = lee.Generator("mixture", (1.0, 0.5, 0.7, -0.4, 0.3, 0.8, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Report:
    """What the checks found.

    Args:
        mode: How the derivative was computed: `"stacked"`, `"stacked, n functions by functorch"` or a whole-function fallback.
        layer_mode: The decomposition's mode.
        calls: Module calls, and how many of them are counted in the call around them.
        difference: Largest relative deviation from central differences.
        identity: Largest relative deviation among the three identities.
        changed: What a measurement left changed.
        seconds: CPU seconds of a forward pass, of the Gram matrix of nine generators and of the decomposition.
    """

    mode: str
    layer_mode: str
    calls: int
    merged: int
    difference: float
    identity: float
    changed: tuple[str, ...]
    forward_s: float
    gram_s: float
    layers_s: float

    @property
    def problems(self) -> list[str]:
        """What is wrong; empty for a model that is covered."""
        found = [f"left changed: {name}" for name in self.changed]
        if not self.difference < DIFFERENCE:
            found.append(f"differs from finite differences by {self.difference:.1e}")
        if not self.identity < IDENTITY:
            found.append(f"the parts miss the whole by {self.identity:.1e}")
        return found


def randomised(model: nn.Module, side: int) -> nn.Module:
    """The model in float64 and eval mode, none of its layers idle.

    What starts as zeros or ones gets noise, and batch normalisation the statistics of some images: with those that it starts
    with, the signal of a deep network may fade to the size of rounding.
    """
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim < 2 or not bool(parameter.any()):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    model = model.double().eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model(smooth_images(side, n=4))
    return model.eval()


def smooth_images(side: int, n: int = 2, channels: int = 3) -> Tensor:
    """Random images (n, channels, side, side) without the highest frequencies, float64."""
    coarse = torch.rand(n, channels, side // 2, side // 2, generator=torch.Generator().manual_seed(2))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").double()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model, and around it, that a measurement might change."""
    modules = list(model.modules())
    return {
        "state": weights_sha256(model),
        "training": [m.training for m in modules],
        "hooks": [[len(v) for k, v in sorted(vars(m).items()) if k.endswith("_hooks")] for m in modules],
        "attributes": [sorted(vars(m)) for m in modules],
        "requires_grad": [(p.requires_grad, p.grad is None) for p in model.parameters()],
        "random state": torch.get_rng_state().tolist(),
        "grad mode": torch.is_grad_enabled(),
    }


def central_difference(
    function: Callable[[Tensor], Tensor], x: Tensor, generator: lee.Generator, step: float, output: Representation | None = None
) -> Tensor:  # fmt: skip
    """`(F(h) - F(-h)) / 2h` of `F(t) = exp(-tX) f(exp(tX) x)`; the output stays where it is unless its representation is given."""
    sampler = Sampler().for_image(*x.shape[-2:])

    def moved(t: float) -> Tensor:
        return (output or Trivial()).finite(generator, -t, function(Image().finite(generator, t, x, sampler)), sampler)

    with torch.no_grad():
        return (moved(step) - moved(-step)) / (2 * step)


def check(
    model: nn.Module, x: Tensor, output: Output = "logits", representation: Representation | None = None, **options: Any
) -> Report:
    """Measure a model on images `x` (N, C, H, W) in every way that the table reports.

    Args:
        model: In eval mode, float64.
        x: Images.
        output: Scores, or a callable.
        representation: How the output moves; None for scores, which don't.
        **options: Further keywords of both measurements, such as `mode`.
    """
    before, given = snapshot(model), x.clone()
    start = time.process_time()
    with torch.no_grad():
        select(model(x), output)
    forward_s = time.process_time() - start
    start = time.process_time()
    with record_fallbacks() as fallbacks:
        gram = lee.equivariance_gram(model, x, output=output, progress=False, **options)
    gram_s = time.process_time() - start
    start = time.process_time()
    parts = lee.layerwise(model, x, MIXTURE, output=output)
    layers_s = time.process_time() - start
    difference = _difference(model, x, output, representation, gram, options)
    share = abs(float(parts.frame.self_share.sum()) - 1)
    whole = abs(parts.total.value / gram.lee(MIXTURE).value - 1)
    changed = [name for name, value in snapshot(model).items() if value != before[name]]
    if not torch.equal(x, given):
        changed.append("images")
    return Report(
        _mode(fallbacks), parts.mode, len(parts.frame), len(parts.notes), difference, max(share, whole, parts.residual),
        tuple(changed), forward_s, gram_s, layers_s,
    )  # fmt: skip


def _difference(
    model: nn.Module, x: Tensor, output: Output, moves: Representation | None, gram: lee.EquivarianceGram,
    options: dict[str, Any],
) -> float:  # fmt: skip
    """The derivatives, and their norms by the Gram matrix, against central differences."""
    gaps = []
    for generator in (MIXTURE, lee.CONTRAST):
        found = lee.lie_derivative(model, x, generator, output=output, **options)
        known = [central_difference(lambda z: select(model(z), output), x, generator, step, moves) for step in STEPS]
        best = min(known, key=lambda k: float((found - k).norm()))
        size = float(best.square().flatten(1).mean(1).mean())
        gaps.append(float((found - best).norm() / best.norm()))
        gaps.append(abs(gram.lee(generator).value / size - 1) / 2)  # of the norm, not its square
    return max(gaps)


def _mode(fallbacks: list[str]) -> str:
    whole = [name for name in fallbacks if name.startswith("whole function")]
    if whole:
        return whole[0]
    names = sorted(set(fallbacks))
    return f"stacked; by functorch: {', '.join(names)}" if names else "stacked"
