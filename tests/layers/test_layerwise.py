"""The identity on every family of architectures, the invariants of pointwise layers, representations, and bad input."""

import copy
import math
import threading
import warnings
from typing import Any

import pytest
import torch
from cases import images
from families import FAMILIES, family
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn

import lee
from lee.autodiff import record_fallbacks
from lee.errors import InputError
from lee.geometry.representations import Map, Scattered, Tokens, Trivial
from lee.layers import Decomposition
from lee.layers.readings import Overrides
from lee.layers.trace import trace

WITHOUT_REVERSE = {
    "XCiT"
}  # torch's backward pass through its class attention is not the derivative of its forward pass


def decompose(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Decomposition:
    model, x = family(name, dtype)
    return lee.layerwise(model, x, "rotation", output="logits" if name == "U-Net" else "probabilities", **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_self_terms_sum_to_the_total(name: str) -> None:
    """`Σ v_self = L`, and `nn.Sequential` adds nothing of its own, in double and in single precision."""
    exact = decompose(name)
    assert exact.total.value > 0
    assert exact.residual < 1e-10
    assert exact.frame.self_share.sum() == pytest.approx(1, abs=1e-10)
    assert exact.frame.norm2[0] == pytest.approx(exact.total.value, rel=1e-10)
    assert decompose(name, torch.float32).residual < 1e-4


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in WITHOUT_REVERSE | {"U-Net", "MobileViT"}])
def test_forward_and_reverse_mode_agree(name: str) -> None:
    forward, reverse = (decompose(name, mode=mode).frame.iloc[:, 6:] for mode in ("forward", "reverse"))
    scale = forward.abs().max()
    assert float(((forward - reverse).abs() / scale).max().max()) < 1e-9


def test_no_family_needs_functorch_for_a_whole_model() -> None:
    with record_fallbacks() as names:
        for name in ("ResNet", "ViT", "Swin", "Mixer", "ConvNeXt"):
            decompose(name, mode="forward")
    assert not [n for n in names if n.startswith("whole")]


def test_the_total_is_the_local_equivariance_error() -> None:
    model, x = family("ConvNeXt")
    estimate = lee.local_equivariance_error(model, x, "scale", progress=False)
    total = lee.layerwise(model, x, "scale").total
    assert total.value == pytest.approx(estimate.value, rel=1e-10)
    assert total.stderr == pytest.approx(estimate.stderr, rel=1e-10)
    assert str(total) == str(estimate)


# The invariants of method.md: pointwise linear layers contribute exactly nothing.


class Pointwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.add, self.linear, self.head = Residual(), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.add(self.drop(self.bn(self.conv(x))))
        return self.head(self.linear(z.permute(0, 2, 3, 1)).square().mean((1, 2)))


class Residual(nn.Module):
    """An addition of equal grids."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.conv(z)


def _images(n: int = 2, side: int = 12, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("generator", ["translation_x", "rotation", "scale", "shear_y", "stretch_x"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_pointwise_linear_layers_contribute_exactly_nothing(generator: str, mode: str) -> None:
    frame = lee.layerwise(Pointwise().double(), _images(), generator, mode=mode).frame.set_index("path")
    for path in ("conv", "bn", "drop", "linear"):
        assert frame.norm2[path] == 0, path
    assert frame.norm2["add.conv"] > 0
    assert frame.self_norm2["add"] < 1e-24 * frame.norm2["add"]  # the addition itself
    assert frame.norm2["head"] == 0


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_circular_convolution_contributes_nothing_to_a_circular_translation(mode: str) -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular")
    net = nn.Sequential(conv, nn.Conv2d(5, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    frame = lee.layerwise(net, _images(), "translation_x", boundary="circular", mode=mode).frame
    assert frame.norm2[1] == 0
    assert frame.norm2[2] > 0


@pytest.mark.parametrize("layer", [nn.GELU(), nn.Tanh()])
def test_a_pointwise_non_linearity_contributes_ever_less_to_smoother_images(layer: nn.Module) -> None:
    shares = []
    for waves in (6, 3, 1):
        phase = 2 * math.pi * waves * (torch.arange(16, dtype=torch.float64) + 0.5) / 16
        x = (phase.cos()[:, None] * phase.sin()).expand(1, 3, 16, 16).clone() + 0.1 * torch.arange(3)[:, None, None]
        net = nn.Sequential(layer, nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(196, 4)).double()
        torch.manual_seed(0)
        for p in net.parameters():
            nn.init.normal_(p)
        frame = lee.layerwise(net, x, "translation_x", boundary="circular", output="logits").frame
        shares.append(float(frame.norm2[1] / frame.norm2[2]))
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 1e-6


# Representations


def test_an_explanation_names_what_was_inferred_and_why() -> None:
    model, x = family("DeiT", torch.float32)
    explanation = lee.explain_representations(model, x)
    row = explanation.frame.set_index("path").loc["blocks.0"]
    assert row.outputs == str(Tokens((4, 4), 2))
    assert "4×4 tokens behind 2 without a place" in str(explanation)
    assert "<table" in explanation._repr_html_()


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("Swin", "layers.0.blocks.1.attn", Scattered),
        ("Swin", "layers.1.downsample.reduction", Map),
        ("ConvNeXt", "stages.0.blocks.0.norm", Map),
        ("ViT", "blocks.0.mlp", Tokens),
        ("ViT", "fc_norm", Trivial),
        ("EVA", "blocks.1.attn", Tokens),
        ("MobileViT", "stages.3.1.transformer.0", Scattered),
    ],
)
def test_representations_are_followed_through_every_kind_of_layer(name: str, path: str, kind: type) -> None:
    model, x = family(name, torch.float32)
    with torch.no_grad():
        found = {t.call.path: t for t in trace(model, x[:1], Overrides(None))}
    assert isinstance(found[path].outputs[0].representation, kind)


def test_calls_without_a_representation_are_counted_in_the_module_around() -> None:
    found = decompose("Mixer")
    frame = found.frame.set_index("path")
    assert frame.kind["blocks.0.mlp_tokens.fc1"] == "merged"
    assert math.isnan(frame.norm2["blocks.0.mlp_tokens.fc1"])
    assert frame.kind["blocks.0.mlp_tokens"] == "container"
    assert frame.self_norm2["blocks.0.mlp_tokens"] == pytest.approx(frame.norm2["blocks.0.mlp_tokens"], rel=1e-9)
    assert any("mlp_tokens.fc1" in note for note in found.notes)
    assert "counted in the module around" in str(found)


def test_hidden_units_that_are_as_many_as_the_tokens_are_no_grid() -> None:
    """A token-mixing layer's output has its places back where it meets the tokens again, its hidden units never."""
    model = MlpMixer(
        img_size=32, patch_size=8, embed_dim=32, num_blocks=1, num_classes=4, mlp_ratio=(0.5, 4.0)
    ).double()
    frame = lee.explain_representations(model, _images(side=32)).frame.set_index("path")
    assert frame.inputs["blocks.0.mlp_tokens.act"] == "?"
    assert frame.outputs["blocks.0.mlp_tokens.fc1"] == "?"
    assert frame.measured["blocks.0.mlp_tokens"]
    assert "later combined entry by entry" in frame.why["blocks.0.mlp_tokens"]


def test_an_override_changes_the_parts_but_not_the_sum() -> None:
    model, x = family("ConvNeXt")
    given = lee.layerwise(model, x, "rotation", representations={"stages.0*": "trivial", "stages.1.blocks.0": None})
    inferred = lee.layerwise(model, x, "rotation")
    assert given.total.value == pytest.approx(inferred.total.value, rel=1e-12)
    assert given.frame.self_share.sum() == pytest.approx(1, abs=1e-9)
    assert given.frame.set_index("path").kind["stages.1.blocks.0"] == "merged"
    assert not given.frame.norm2.equals(inferred.frame.norm2)


# What is returned


def test_the_table_adds_up() -> None:
    found = decompose("DenseNet")
    frame = found.frame
    assert list(frame.columns[:6]) == ["path", "type", "call", "depth", "parent", "kind"]
    assert frame.parent[0] == -1
    assert (frame.parent[1:] >= 0).all()
    assert (frame.depth[1:].to_numpy() == frame.depth[frame.parent[1:]].to_numpy() + 1).all()
    assert frame.cumulative.max() == pytest.approx(frame.self_norm2.sum())
    assert frame.self_share.sum() == pytest.approx(1)
    leaves = frame[frame.kind == "leaf"]
    assert leaves.norm2.equals(leaves.self_norm2)
    text = str(found)
    assert "100.0%" in text.splitlines()[2]
    assert "features.denseblock1" in text
    assert len(found.tree(1).splitlines()) < len(found.tree().splitlines())
    assert "calls" in repr(found)


def test_batches_chunks_and_single_images_give_the_same_numbers() -> None:
    model, x = family("Swin")
    x = torch.cat([x, x.flip(3), x.flip(2)])
    whole = lee.layerwise(model, x, "rotation").frame
    batches = lee.layerwise(model, [(x[:4], torch.zeros(4)), x[4:]], "rotation", chunk=1).frame
    numbers = whole.columns[6:]
    assert float((whole[numbers] - batches[numbers]).abs().max().max()) < 1e-9 * float(whole.norm2.max())


def test_grey_images_have_no_saturation() -> None:
    """On one channel brightness is measured, and saturation, which does not exist there, is refused."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).double()
    x = _images(channels=1)
    assert lee.layerwise(net, x, "brightness").residual < 1e-10
    with pytest.raises(InputError, match="Saturation needs RGB"):
        lee.layerwise(net, x, "saturation")


# Bad input, and what must be left alone


def test_the_model_is_left_alone_also_when_a_module_raises() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(Fails())).train()
    with pytest.raises(ValueError, match="no") as caught:
        lee.layerwise(net, _images().float(), "rotation")
    assert "module '1.0'" in "".join(caught.value.__notes__)
    for module in net.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_hook_of_the_users_that_raises_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(300, 2))

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        raise RuntimeError("my hook")

    net[2].register_forward_hook(hook)
    with pytest.raises(RuntimeError, match="my hook") as caught:
        lee.layerwise(net, _images().float(), "rotation")
    assert "module '2'" in "".join(caught.value.__notes__)
    assert len(net[2]._forward_hooks) == 1


def test_a_detached_path_is_measured_forward_and_refused_in_reverse() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                z = self.body(x)
            return self.head(z.tanh().mean((2, 3)))

    net = Frozen().double()
    assert lee.layerwise(net, _images(), "rotation").mode == "forward"
    for mode in ("reverse", "probes"):
        with pytest.raises(InputError, match="Use mode='forward'"):
            lee.layerwise(net, _images(), "rotation", mode=mode)


def test_running_out_of_memory_halves_the_chunk_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import lee.layers.verified

    measure = sys.modules["lee.layers.verified"]
    original, lanes = measure.measure_pass, []

    def greedy(setting: Any, x: Tensor, n: int) -> Any:
        lanes.append(n * len(x))
        if n * len(x) > 5:
            raise torch.OutOfMemoryError("too much")
        return original(setting, x, n)

    monkeypatch.setattr(measure, "measure_pass", greedy)
    model, x = family("VGG")
    with pytest.warns(UserWarning, match="Out of memory: going on with chunk=5"):
        found = lee.layerwise(model, x, "rotation", chunk=10)
    assert found.n == 2
    assert lanes[0] > 5 >= lanes[-1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_models_that_cannot_be_taken_apart_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(300, 2))
    x = _images().float()
    with pytest.raises(InputError, match="scripted"):
        lee.layerwise(torch.jit.script(net), x, "rotation")
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        lee.layerwise(lambda z: z.mean((2, 3)), x, "rotation")  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    with pytest.raises(InputError, match=r"'2' .*quantised"):
        lee.layerwise(small, x, "rotation")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_part_is_counted_in_the_module_around() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), torch.jit.script(nn.GELU()), nn.Flatten(), nn.Linear(300, 2)).double()
    found = lee.layerwise(net, _images(), "rotation")
    assert "1" not in set(found.frame.path)
    assert found.frame.self_share.sum() == pytest.approx(1, abs=1e-9)
    assert found.frame.self_norm2[0] > 0


def test_compiled_and_parallel_wrappers_are_looked_through() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(300, 2)).double()
    plain = lee.layerwise(net, _images(), "rotation").frame
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        assert lee.layerwise(wrapped, _images(), "rotation").frame.equals(plain)
    inner = nn.Sequential(torch.compile(net), nn.Identity())
    assert lee.layerwise(inner, _images(), "rotation").total.value == pytest.approx(plain.norm2[0], rel=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "backward"}, "Unknown mode"),
        ({"chunk": 0}, "`chunk` must be a whole number from 1"),
        ({"probes": 1}, "`probes` must be"),
        ({"representations": {"nothing*": "map"}}, "matches no module"),
        ({"representations": {"0": "mpa"}}, "Unknown representation"),
        ({"representations": {"0": Tokens((3, 3))}}, "does not fit"),
        ({"generator": lambda x, t: x * (1 + t)}, "affine or photometric"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(300, 2)).double()
    generator = options.pop("generator", "rotation")
    with pytest.raises(InputError, match=message):
        lee.layerwise(net, _images(), generator, **options)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        lee.layerwise(nn.Flatten(), [], "rotation")


def test_hooks_of_another_thread_are_not_heard() -> None:
    model, x = family("VGG")
    alone = lee.layerwise(model, x, "rotation").frame
    results: list[Any] = [None, None]

    def work(i: int) -> None:
        results[i] = lee.layerwise(model, x, "rotation").frame

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results[0].equals(alone)
    assert results[1].equals(alone)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="Decompose in single precision"):
        lee.layerwise(
            nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).to(dtype), torch.rand(1, 3, 8, 8).to(dtype), "rotation"
        )


@pytest.mark.parametrize("gap", [10.0, 15.0, 17.0])
def test_a_classifier_that_is_sure_is_decomposed_as_in_double_precision(gap: float) -> None:
    """In single precision the backward pass of a softmax takes a probability of 1 - 1e-8 for 1, with a derivative of 0."""
    torch.manual_seed(3)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1152, 10),
    )
    x = images(4, 12, 12).float()
    top = body(x).detach().topk(2, 1).values
    net = nn.Sequential(body, Times(gap / float((top[:, 0] - top[:, 1]).min())))
    found, exact = lee.layerwise(net, x, "rotation"), lee.layerwise(copy.deepcopy(net).double(), x.double(), "rotation")
    assert found.total.value == pytest.approx(exact.total.value, rel=1e-3)
    assert found.frame.self_share.to_numpy() == pytest.approx(exact.frame.self_share.to_numpy(), abs=5e-3)


@pytest.mark.parametrize("factor", [1e-12, 1e20, 1e22])
def test_outputs_of_any_size_are_decomposed(factor: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Flatten(), nn.Linear(216, 5))
    x = images(2, 8, 8).float()
    plain, scaled = (
        lee.layerwise(n, x, "rotation", output="logits") for n in (net, nn.Sequential(*net, Times(factor)))
    )
    assert scaled.total.value / factor**2 == pytest.approx(plain.total.value, rel=1e-4)
    assert scaled.frame.self_share[:5].to_numpy() == pytest.approx(plain.frame.self_share[:5].to_numpy(), abs=1e-3)
