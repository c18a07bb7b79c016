"""`lee.layerwise` against a brute-force decomposition by dense Jacobians, written without it (`layer_oracle.py`)."""

import contextlib
import copy
import threading
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from layer_cases import CASES, SIDE, build, images, maps_only, softmax, strided
from layer_oracle import FIXED, LOST, Grid, Place, Row, decompose
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lee
from lee import datasets as lee_datasets
from lee import models as lee_models
from lee.errors import InputError
from lee.layers import Decomposition, layerwise

NUMBERS = [
    "norm2",
    "norm2_se",
    "share",
    "share_se",
    "self_norm2",
    "self_norm2_se",
    "self_share",
    "self_share_se",
    "cumulative",
]


def expected(per_image: list[list[Row]]) -> pd.DataFrame:
    """The table by its definitions, in plain loops over images and calls."""
    n, dim = len(per_image), len(per_image[0][0].v)  # type: ignore[arg-type]
    totals = [float(rows[0].v @ rows[0].v) / dim for rows in per_image]  # type: ignore[operator]
    mean_total, table, running = sum(totals) / n, [], 0.0

    def error(values: list[float]) -> float:
        mean = sum(values) / n
        return (sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5 if n > 1 else float("nan")

    for m, row in enumerate(per_image[0]):
        entry: dict[str, Any] = {k: getattr(row, k) for k in ("path", "type", "call", "depth", "parent", "kind")}
        for prefix, name in (("", "v"), ("self_", "own")):
            if row.v is None:
                continue
            vectors = [getattr(rows[m], name) for rows in per_image]
            squares = [float(v @ v) / dim for v in vectors]
            dots = [float(v @ rows[0].v) / dim for v, rows in zip(vectors, per_image, strict=True)]  # type: ignore[operator]
            share = sum(dots) / n / mean_total
            entry[f"{prefix}norm2"], entry[f"{prefix}norm2_se"] = sum(squares) / n, error(squares)
            # a ratio of means: its error is that of the linearised ratio
            entry[f"{prefix}share"] = share
            entry[f"{prefix}share_se"] = error(
                [(d - share * t) / mean_total for d, t in zip(dots, totals, strict=True)]
            )
        table.append(entry)
    for m in sorted(range(len(table)), key=lambda m: per_image[0][m].finished):
        running += table[m].get("self_norm2", 0.0)
        table[m]["cumulative"] = running
    return pd.DataFrame(table)


def oracle(name: str, x: Tensor, generator: str, place: Any = None) -> pd.DataFrame:
    case, model = CASES[name], build(name)
    return expected([decompose(model, image[None], generator, place or case.place, case.select) for image in x])


def measure(name: str, x: Any, generator: str, **options: Any) -> Decomposition:
    return layerwise(build(name), x, generator, output=CASES[name].select, **options)


def assert_same(
    frame: pd.DataFrame, truth: pd.DataFrame, tolerance: float = 1e-9, numbers: list[str] = NUMBERS
) -> None:
    keys = ["path", "type", "call", "depth", "parent", "kind"]
    pd.testing.assert_frame_equal(frame[keys], truth[keys], check_dtype=False)
    for column in numbers:
        scale = truth["self_share" if "share" in column else "norm2"].abs().max()
        pd.testing.assert_series_equal(
            frame[column], truth[column], rtol=tolerance, atol=tolerance * scale, check_names=False, obj=column
        )


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("generator", ["translation_x", "rotation"])
@pytest.mark.parametrize("name", CASES)
def test_exact_modes_are_the_dense_decomposition(name: str, generator: str, mode: str) -> None:
    x = images(1)
    parts = measure(name, x, generator, mode=mode)
    truth = oracle(name, x, generator)
    assert_same(parts.frame, truth)
    assert parts.total.value == pytest.approx(truth.norm2[0], rel=1e-12)
    assert parts.frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)
    assert parts.residual < 1e-9


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", CASES)
def test_standard_errors_over_images(name: str, mode: str) -> None:
    x = images(4, seed=1)
    parts = measure(name, x, "rotation", mode=mode)
    truth = oracle(name, x, "rotation")
    assert_same(parts.frame, truth)
    assert parts.n == 4
    assert parts.total.stderr == pytest.approx(truth.norm2_se[0], rel=1e-9)
    assert parts.frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_probes_scatter_around_the_dense_decomposition(name: str) -> None:
    x, probes = images(2, seed=2), 1500
    parts, truth = measure(name, x, "scale", mode="probes", probes=probes), oracle(name, x, "scale")
    assert_same(parts.frame, truth, numbers=[])
    for column in ("norm2", "self_norm2"):
        found, exact = parts.frame[column], truth[column]
        # of a Rademacher probe, Var ⟨u, v⟩² ≤ 2‖v‖⁴; two images average independent probes
        bound = 4.5 * (2 / probes) ** 0.5 * exact + 1e-12 * truth.norm2.max()
        outside = (found - exact).abs() > bound
        assert not outside[truth.kind != "merged"].any(), parts.frame[outside]
    # ⟨u, v⟩⟨u, L⟩ varies by at most (‖v‖² ‖L‖² + ⟨v, L⟩²)^½
    spread = (truth.norm2 / truth.norm2[0] + truth.share**2) ** 0.5
    gap = (parts.frame.share - truth.share).abs()
    assert not (gap > 4.5 * spread * probes**-0.5 + 1e-12)[truth.kind != "merged"].any()


def test_reported_error_of_probes_covers_the_truth() -> None:
    """Over seeds, the deviation in units of `probe_se` has unit variance."""
    x, scores = images(1), []
    exact = measure("cnn", x, "rotation", mode="forward").frame
    for seed in range(30):
        frame = measure("cnn", x, "rotation", mode="probes", probes=60, seed=seed).frame
        keep = (exact.norm2 > 1e-12) & (frame.probe_se > 0)
        scores.append(((frame.norm2 - exact.norm2) / frame.probe_se)[keep])
    scatter = pd.concat(scores)
    assert 0.7 < scatter.std() < 1.5
    assert abs(scatter.mean()) < 0.4


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", CASES)
def test_several_batches_and_chunks_are_one_batch(name: str, mode: str) -> None:
    x = images(5, seed=3)
    whole = measure(name, x, "rotation", mode=mode).frame
    labels = torch.arange(5)
    for batches in ([x[:2], x[2:]], [(x[:1], labels[:1]), (x[1:], labels[1:])], iter([x[:4], x[4:]])):
        assert_same(measure(name, batches, "rotation", mode=mode).frame, whole)
    for chunk in (1, 3, 1000):
        assert_same(measure(name, x, "rotation", mode=mode, chunk=chunk).frame, whole)


def test_order_of_images_does_not_matter() -> None:
    x = images(4, seed=5)
    assert_same(measure("vit", x.flip(0), "scale").frame, measure("vit", x, "scale").frame)


# ------------------------------------------------------------------------------------- what the caller says of layouts


def without(*paths: str) -> Callable[..., Place]:
    """The CNN's places with the outputs of some modules declared unknown."""

    def place(path: str, kind: str, i: int, z: Tensor) -> Place:
        return LOST if kind == "out" and path in paths else strided(path, kind, i, z)

    return place


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_merged_container_passes_its_children_on(mode: str) -> None:
    """Its own part moves to the call around it, the parts of its children stay."""
    parts = measure("cnn", images(2), "rotation", mode=mode, representations={"block": None})
    truth = oracle("cnn", images(2), "rotation")
    frame = parts.frame
    assert frame[frame.path == "block"].kind.tolist() == ["merged"]
    inner = frame.path.str.startswith("block.")
    # the tensor that leaves the block also enters the pool, whose input then has no known place either
    for path in ("block.conv1", "block.conv2"):
        assert frame.norm2[frame.path == path].item() == pytest.approx(truth.norm2[truth.path == path].item(), rel=1e-9)
    assert (frame.kind[inner] == "leaf").all()
    assert frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)


def test_a_merged_leaf_is_counted_in_its_parent() -> None:
    def place(path: str, kind: str, i: int, z: Tensor) -> Place:
        lost = (path, kind) in (("block.conv2", "out"),)
        return LOST if lost else strided(path, kind, i, z)

    x = images(2)
    parts = measure("cnn", x, "scale", representations={"block.conv2": None})
    truth = oracle("cnn", x, "scale", place)
    row = parts.frame.path == "block"
    assert parts.frame.kind[parts.frame.path == "block.conv2"].tolist() == ["merged"]
    assert parts.frame[parts.frame.path == "block.conv2"][["norm2", "share", "self_norm2"]].isna().all(axis=None)
    assert parts.frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)
    assert parts.frame.norm2[row].item() == pytest.approx(truth.norm2[truth.path == "block"].item(), rel=1e-9)


@pytest.mark.parametrize(
    ("path", "first", "step"), [("stem", 0, 1), ("down", 0, 2), ("block.conv1", 0, 2), ("pool", 1, 4)]
)
def test_an_override_that_says_what_is_inferred_changes_nothing(path: str, first: int, step: int) -> None:
    x, at = images(2), lee.geometry.Registration(((first + 0.5) / SIDE,) * 2, (step / SIDE,) * 2)
    given = {path: lee.Map(registration=at)}
    assert_same(measure("cnn", x, "rotation", representations=given).frame, oracle("cnn", x, "rotation"))


@pytest.mark.parametrize("name", ["cnn", "twice", "nested"])
def test_centred_grids_cover_the_image_evenly(name: str) -> None:
    x = images(2)
    centred = measure(name, x, "rotation", grids="centred").frame
    assert_same(centred, oracle(name, x, "rotation", maps_only))
    registered = measure(name, x, "rotation").frame
    assert (registered.norm2 - centred.norm2).abs().max() > 1e-3 * registered.norm2.max()
    assert registered.norm2[0] == pytest.approx(centred.norm2[0], rel=1e-12)  # the total is not a matter of inner grids


def test_an_override_replaces_the_inferred_representation() -> None:
    """A convolution whose output is declared immobile keeps `J X h` alone; what comes before it is as it was."""

    def place(path: str, kind: str, i: int, z: Tensor) -> Place:
        return FIXED if (path, kind) == ("down", "out") else strided(path, kind, i, z)

    x = images(1)
    parts = measure("cnn", x, "rotation", representations={"down": "trivial"})
    truth = oracle("cnn", x, "rotation", place)
    for path in ("stem", "norm", "act", "down"):
        found, exact = (frame.norm2[frame.path == path].item() for frame in (parts.frame, truth))
        assert found == pytest.approx(exact, rel=1e-9, abs=1e-15), path
    assert parts.frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)


def test_an_override_ends_where_the_layout_ends() -> None:
    """What is pooled out of a declared map is no map."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.conv(x).amax((2, 3))))

    model, x = Pooled().double().eval(), images(2)
    truth = layerwise(model, x, "rotation").frame
    for given in ("map", None):
        frame = layerwise(model, x, "rotation", representations={"conv": given}).frame
        assert frame.norm2[0] == pytest.approx(truth.norm2[0], rel=1e-12)
        assert frame.self_share.sum() == pytest.approx(1.0, abs=1e-10)


# ---------------------------------------------------------------------------------------------- the model afterwards


class Fails(nn.Module):
    """Raises when it is called for the n-th time."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.calls = n, [0]

    def forward(self, x: Tensor) -> Tensor:
        FAILED.append(1)
        if len(FAILED) == self.n:
            raise RuntimeError("on purpose")
        return x


FAILED: list[int] = []


def snapshot(model: nn.Module) -> Any:
    """Everything about a model that a measurement might change."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
             "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_state_dict_hooks")  # fmt: skip
    return (
        [
            (path, m.training, sorted(m.__dict__), m.forward.__func__ is type(m).forward)
            for path, m in model.named_modules()
        ],
        [[list(getattr(m, h).items()) for h in hooks] for m in model.modules()],
        [(k, v.data_ptr(), v.tolist()) for k, v in model.state_dict(keep_vars=True).items()],
        [
            (p.requires_grad, None if p.grad is None else (p.grad.data_ptr(), p.grad.tolist()))
            for p in model.parameters()
        ],
        [getattr(m, "inplace", None) for m in model.modules()],
    )


def lived_in(model: nn.Module, log: list[str]) -> nn.Module:
    """The model with mixed modes, gradients, frozen parameters and the user's own hooks."""
    model.train()
    parameters = list(model.parameters())
    for p in parameters[::2]:
        p.grad = torch.ones_like(p)
    parameters[1].requires_grad_(False)
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
        module.register_forward_hook(lambda m, a, o: log.append("forward"))
        module.register_forward_pre_hook(lambda m, a: log.append("pre"))
    return model


@pytest.mark.parametrize("mode", ["forward", "reverse", "probes"])
@pytest.mark.parametrize("name", CASES)
def test_a_measurement_leaves_no_trace(name: str, mode: str) -> None:
    model, x = lived_in(build(name), []), images(2)
    before, copied, state = snapshot(model), x.clone(), torch.get_rng_state()
    layerwise(model, x, "rotation", output=CASES[name].select, mode=mode, probes=3)
    assert snapshot(model) == before
    assert torch.equal(x, copied)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mode", ["forward", "reverse", "probes"])
@pytest.mark.parametrize("n", range(1, 8))
def test_an_exception_leaves_no_trace(n: int, mode: str) -> None:
    inner = build("cnn")
    inner.down = nn.Sequential(inner.down, Fails(n))  # type: ignore[assignment]
    model = lived_in(inner, [])
    before = snapshot(model)
    FAILED.clear()
    # forward mode answers a failure inside its pass by going on in reverse mode, so not every failure comes through
    with contextlib.suppress(RuntimeError, InputError):
        layerwise(model, images(2), "rotation", mode=mode, probes=3)
    assert len(FAILED) >= min(n, 3)  # every mode makes three passes at the least
    assert snapshot(model) == before
    assert torch.is_grad_enabled()


def test_refused_input_leaves_no_trace() -> None:
    model = lived_in(build("cnn"), [])
    before = snapshot(model)
    for options in (
        {"representations": {"nowhere": "map"}}, {"representations": {"head": "map"}}, {"output": "logit"}, {"mode": "sideways"},
        {"output": lambda z: "text"}, {"probes": 0}, {"kernel": "sinc"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            layerwise(model, images(2), "rotation", **options)  # type: ignore[arg-type]
        assert snapshot(model) == before


def test_modes_of_the_caller_are_respected() -> None:
    model, x = build("vit"), images(2)
    truth = layerwise(model, x, "rotation").frame
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            for mode in ("forward", "reverse"):
                assert_same(layerwise(model, x.clone().requires_grad_(), "rotation", mode=mode).frame, truth)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert_same(layerwise(model, x, "rotation", mode="reverse").frame, truth)


def test_threads_measure_one_model_at_once() -> None:
    model = build("cnn").train()
    batches = [images(2, seed=s) for s in range(4)]
    alone = [layerwise(model, x, "rotation").frame for x in batches]
    before, results, errors = snapshot(model), {}, []
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        try:
            barrier.wait()
            for _ in range(3):
                results[i] = layerwise(model, batches[i], "rotation").frame
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for i, frame in enumerate(alone):
        assert_same(results[i], frame)
    assert snapshot(model) == before


# ------------------------------------------------------------------------------------------------- the user's hooks


class Scaled(nn.Conv2d):
    """A convolution that squashes and doubles its input and triples its output."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(2 * x.tanh())


def around_conv(conv: nn.Conv2d) -> nn.Module:
    return nn.Sequential(conv, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).double().eval()


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_hooks_that_change_arguments_and_outputs_are_part_of_the_call_once(mode: str) -> None:
    plain = around_conv(Scaled(3, 4, 3, padding=1))
    hooked = around_conv(nn.Conv2d(3, 4, 3, padding=1))
    hooked.load_state_dict(plain.state_dict())
    hooked[0].register_forward_pre_hook(lambda m, args: (2 * args[0].tanh(),))  # type: ignore[operator]
    hooked[0].register_forward_hook(lambda m, args, out: 3 * out)  # type: ignore[operator]
    x = images(2)
    truth = expected([decompose(plain, image[None], "rotation", maps_only, softmax) for image in x])
    frame = layerwise(hooked, x, "rotation", mode=mode).frame
    assert frame.type[1] == "Conv2d"
    assert_same(frame.assign(type=truth.type), truth)


class Frozen(nn.Module):
    """A backbone whose gradients are blocked, or that saves memory, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.head = way, nn.Linear(4, 4)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        if self.way.startswith("checkpoint"):
            z = checkpoint(self.backbone, x, use_reentrant=self.way.endswith("reentrant"))
        else:
            with torch.set_grad_enabled(self.way != "no_grad" and torch.is_grad_enabled()):
                z = self.backbone(x)
        return self.head((z.detach() if self.way == "detach" else z).square().mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("way", ["no_grad", "detach", "checkpoint", "checkpoint reentrant"])
def test_models_without_a_backward_pass_are_measured_forward(way: str) -> None:
    """The Lie derivative is a derivative of the function, whatever is hidden from the optimiser."""
    models = [Frozen(w).double().eval() for w in ("plain", way)]
    models[1].load_state_dict(models[0].state_dict())
    x, before = images(2), snapshot(models[1])
    truth = layerwise(models[0], x, "rotation").frame
    for mode in ("forward", "auto"):
        parts = layerwise(models[1], x, "rotation", mode=mode)
        assert_same(parts.frame, truth)
        assert parts.residual < 1e-9
    for mode in ("reverse", "probes"):
        try:
            frame = layerwise(models[1], x, "rotation", mode=mode, probes=50).frame
        except InputError:
            continue
        assert mode == "probes" or assert_same(frame, truth) is None  # never a wrong number
    assert snapshot(models[1]) == before


class Standardised(nn.Module):
    """A network behind a function of the image: no module's own tensors change with the light."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 0.4) / 0.2)


@pytest.mark.parametrize(
    ("generator", "mode"),
    [(g, m) for g in ("brightness", "contrast", "saturation") for m in ("forward", "reverse", "auto")]
    + [("contrast", "probes")],
)
def test_a_change_of_light_belongs_to_what_reads_the_image(generator: str, mode: str) -> None:
    parts = layerwise(Standardised().eval(), images(2), generator, mode=mode, probes=2000)
    frame = parts.frame
    assert frame.self_share.sum() == pytest.approx(1.0, abs=1e-10 if mode != "probes" else 0.2)
    assert frame.self_share[0] == pytest.approx(1.0, abs=1e-10 if mode != "probes" else 0.2)
    assert (frame.norm2[1:] < 1e-20).all()
    direct = layerwise(
        build("cnn"), images(2), generator, mode=mode, probes=2000
    ).frame  # here the stem reads the image
    assert direct.share[direct.path == "stem"].item() == pytest.approx(1.0, abs=1e-10 if mode != "probes" else 0.2)


@pytest.mark.parametrize("name", CASES)
def test_parallelogram_law(name: str) -> None:
    """`v` is linear in the generator, so `‖v_X+Y‖² + ‖v_X-Y‖² = 2‖v_X‖² + 2‖v_Y‖²` for every call."""
    x, y = lee.ROTATION, 0.7 * lee.SCALE + lee.TRANSLATION_Y
    plus, minus, one, two = (measure(name, images(2), g).frame for g in (x + y, x - y, x, y))
    for column in ("norm2", "self_norm2"):
        left, right = plus[column] + minus[column], 2 * one[column] + 2 * two[column]
        scale = right.abs().max()
        pd.testing.assert_series_equal(left, right, rtol=1e-9, atol=1e-12 * scale)


class Overwriting(nn.Module):
    """Normalises the image in place, as data pipelines do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.3)
        return self.head(self.conv(x).tanh().mean((2, 3)))


@pytest.mark.parametrize("mode", ["forward", "reverse", "probes"])
def test_a_model_that_overwrites_its_input_overwrites_a_copy(mode: str) -> None:
    model, x = Overwriting().double().eval(), images(2)
    before = x.clone()
    truth = expected([decompose(model, image[None], "rotation", maps_only, softmax) for image in x])
    frame = layerwise(model, x, "rotation", mode=mode, probes=10).frame
    assert torch.equal(x, before)
    if mode != "probes":
        assert_same(frame, truth)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_batch_norm_of_the_batch_is_no_fixed_map(mode: str) -> None:
    """Without running statistics it normalises by the moments of what it sees, which a generator moves."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 4),
    ).double().eval()  # fmt: skip
    x = images(1)
    truth = expected([decompose(model, x, "scale", maps_only, softmax)])
    assert truth.share[truth.type == "BatchNorm2d"].abs().item() > 1e-3
    assert_same(layerwise(model, x, "scale", mode=mode).frame, truth)


@pytest.mark.parametrize("mode", ["forward", "reverse", "probes", "auto"])
def test_an_exactly_equivariant_model_is_measured_as_zero(mode: str) -> None:
    """Circular convolutions and an average: all that is left is rounding, which is no reason to refuse a mode."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4),
    ).double().eval()  # fmt: skip
    frame = layerwise(model, images(2), "translation_x", boundary="circular", mode=mode).frame
    assert frame.norm2.max() < 1e-25


def test_kinks_in_single_precision_are_no_reason_to_refuse_a_mode() -> None:
    """Two float32 passes through ReLUs may disagree by parts in a thousand: the derivative jumps where rounding decides."""
    pictures = lee_datasets.load("photos", n=2, size=96).images
    model = lee_models.load("resnet18", seed=0, zero_init_last=False).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(lee_datasets.load("photos", n=6, size=96).images)
    parts = layerwise(model, pictures[1:], "translation_x", mode="probes", probes=2)
    assert parts.frame.norm2[0] > 0


def test_a_weight_that_is_tied_and_a_module_that_is_shared() -> None:
    """One module under two names: its calls appear under one of them, and nothing is counted twice."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.again, self.head = self.first, nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.first(x).tanh()).square().mean((2, 3)))

    model, x = Shared().double().eval(), images(1)
    truth = expected([decompose(model, x, "rotation", maps_only, softmax)])
    assert_same(layerwise(model, x, "rotation").frame, truth)


def test_a_copy_of_the_model_gives_the_same_bytes() -> None:
    model, x = build("mixer"), images(3)
    first, second = layerwise(model, x, "scale").frame, layerwise(copy.deepcopy(model), x, "scale").frame
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_the_oracle_is_complete() -> None:
    """The brute-force self terms sum to the total, whose places were declared by hand."""
    for name, case in CASES.items():
        rows = decompose(build(name), images(1), "rotation", case.place, case.select)
        parts = [row.own for row in rows if row.own is not None]
        total = rows[0].v
        assert total is not None
        torch.testing.assert_close(torch.stack(parts).sum(0), total, rtol=0, atol=1e-14)
        assert isinstance(case.place(rows[0].path, "in", 0, images(1)), Grid)
