"""Models as users bring them: timm's families, torchvision's backbones, transformers, image to image, a plain Sequential.

`benchmarks/coverage.py` walks all of timm's registry with the same checks; its table is committed.
"""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from families import UNet
from timm.layers import RmsNormFp32
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import detection, segmentation

import lee
from benchmarks.coverage_checks import MIXTURE, REMARKS, Report, central_difference, check, randomised, smooth_images
from lee.geometry.representations import Image, Map, Representation
from lee.measure.checks import Output

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

#: Small members of twenty families, and a side that they take.
TIMM = {
    "convit_tiny": 32, "deit_tiny_patch16_224": 32, "dla46x_c": 32, "edgenext_xx_small": 32, "fasternet_t0": 32,
    "inception_next_atto": 32, "levit_128s": 64, "mobilenetv3_small_050": 32, "mobilevit_xxs": 32, "pit_ti_224": 32,
    "regnetx_002": 32, "starnet_s050": 32, "test_byobnet": 32, "test_coatnet": 32, "test_convnext": 32, "test_efficientnet": 32,
    "test_nfnet": 32, "test_resnet": 32, "test_vit": 32, "test_vit_relpos": 32,
}  # fmt: skip


def covered(
    model: nn.Module, side: int, output: Output = "logits", moves: Representation | None = None, **options: Any
) -> Report:
    report = check(randomised(model, side), smooth_images(side), output, moves, **options)
    assert not report.problems
    return report


def of_timm(name: str, side: int) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=4, img_size=side)
    except TypeError:  # convolutional networks take what comes
        return timm.create_model(name, num_classes=4)


@pytest.mark.parametrize("name", TIMM)
def test_a_family_of_timm(name: str) -> None:
    torch.manual_seed(0)
    assert covered(of_timm(name, TIMM[name]), TIMM[name]).mode.startswith("stacked")


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_a_classifier_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    covered(torchvision_models.get_model(name, weights=None, num_classes=4), 32)


def test_a_segmentation_network_of_torchvision() -> None:
    """A mapping with a map of scores, which moves with the image."""
    torch.manual_seed(0)
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    report = covered(model, 32, lambda found: found["out"], Map())
    assert report.layer_mode == "forward"


@pytest.mark.filterwarnings("ignore::lee.errors.OutputWarning")  # images and small maps it is
def test_a_detection_backbone_of_torchvision() -> None:
    """A mapping with one map per level of the pyramid."""
    torch.manual_seed(0)
    backbone = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    covered(backbone, 64, lambda levels: levels["2"][:, :8], Map())


def test_a_vision_transformer_of_hugging_face() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing it warns of is none of ours
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
            num_labels=4,
        )  # fmt: skip
        torch.manual_seed(0)
        covered(transformers.ViTForImageClassification(config), 32, lambda found: found.logits)


@pytest.mark.filterwarnings("ignore::lee.errors.OutputWarning")  # images and small maps it is
def test_an_image_to_image_network() -> None:
    torch.manual_seed(0)
    covered(UNet(), 16, moves=Image())


def test_a_plain_sequential() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(4),
    ]
    model = nn.Sequential(*layers)
    model(torch.rand(1, 3, 16, 16))
    assert covered(model, 16).merged == 0


def test_the_check_finds_a_wrong_derivative() -> None:
    """A function of the user's own whose backward pass is not its derivative."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.square()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = Doubled.apply(x)  # type: ignore[no-untyped-call]
            return out.mean((2, 3))

    with pytest.raises(lee.VerificationError):
        check(nn.Sequential(Wrong()), smooth_images(16), mode="reverse")
    report = check(nn.Sequential(Wrong()), smooth_images(16), mode="reverse", verify=False)
    assert any("finite differences" in problem for problem in report.problems)


def test_the_check_finds_a_trace() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            torch.rand(1)
            return x.mean((2, 3)) ** 2 * self.weight

    with pytest.warns(lee.RandomFunctionWarning):  # what is drawn need not show in the value of every image
        assert "random state" in check(nn.Sequential(Counting()), smooth_images(16)).changed


#: Families that the check doesn't pass, by the table's words: both compute in single precision inside, as below.
EXCEPTIONS: dict[str, str] = {
    "deepseek_vit": "differs from finite differences by 7.5e-01",
    "efficientvit_mit": "differs from finite differences by 1.1e-01",
}


def test_single_precision_inside_a_model_disturbs_differences_and_no_derivative() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 5, 5), nn.Flatten(2), nn.Linear(36, 8), RmsNormFp32(8), nn.Flatten(), nn.Linear(64, 4)]
    model, x = nn.Sequential(*layers).double().eval(), smooth_images(32)
    forward, reverse = (lee.lie_derivative(model, x, MIXTURE, output="logits", mode=m) for m in ("forward", "reverse"))
    gap = {step: central_difference(model, x, MIXTURE, step) - reverse for step in (1e-4, 1e-9)}
    size = reverse.norm()
    assert (forward - reverse).norm() < 1e-5 * size
    assert gap[1e-4].norm() < 1e-2 * size
    assert gap[1e-9].norm() > 0.1 * size
    assert any("finite differences" in problem for problem in check(model, x).problems)


def test_the_table_names_every_family_of_timm_and_none_that_failed() -> None:
    chosen = json.loads((BENCHMARKS / "coverage_models.json").read_text())
    with (BENCHMARKS / "coverage.csv").open() as stream:
        rows = {row["family"]: row for row in csv.DictReader(stream)}
    assert {family: row["model"] for family, row in rows.items()} == chosen
    failed = {f: row["verdict"] for f, row in rows.items() if row["verdict"] not in ("passed", "not measured yet")}
    assert failed == EXCEPTIONS
    assert set(EXCEPTIONS) == set(REMARKS)
    passed = sum(row["verdict"] == "passed" for row in rows.values())
    assert f"{passed} of timm's {len(rows)} architecture families" in (BENCHMARKS.parent / "README.md").read_text()
    about = (BENCHMARKS / "coverage.md").read_text()
    if f"timm {timm.__version__}," in about:  # another timm may have other families
        assert set(rows) == set(timm.list_modules())
