"""Reports: their numbers are those of lee's own functions, their sentences follow from the numbers, and nothing is lost."""

import copy
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import lee
from lee import datasets, reports
from lee.cli import app
from lee.errors import InputError
from lee.reports import measuring, sentences

METHOD = {"output": "probabilities", "kernel": "fourier", "boundary": "reflect"}
PLAIN = {"progress": False, **METHOD}


class Small(nn.Module):
    """Twelve classes that don't all have names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 6, 3, stride=2)
            self.head = nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.conv(x))
        return 40 * self.head(nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))


def given(n: int = 5, **changes: Any) -> measuring.Given:
    inputs = datasets.load("patches", n=n, size=16).images
    about = {"model": "small", "weights": "none", "images": "patches", "n": n, "size": 16, **METHOD}
    settings: dict[str, Any] = {
        "network": Small(), "inputs": inputs, "described": about, "class_names": ("cat", "dog"), "labels": torch.arange(n),
        "references": {"other": (Small(1), inputs)}, "method": METHOD, "layered": 3,
    }  # fmt: skip
    return measuring.Given(**{**settings, **changes})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return reports.measured(given(), tmp_path_factory.mktemp("parts"), progress=False)


def test_errors_are_those_of_lee(found: dict[str, Any]) -> None:
    about = given()
    rows = {row["motion"]: row for row in found["errors"]["rows"]}
    for name in ("translation_x", "rotation", "scale", "brightness"):
        estimate = lee.local_equivariance_error(about.network, about.inputs, name, **PLAIN)
        assert rows[name]["lee"] == pytest.approx(estimate.value, rel=1e-4)
        assert [rows[name]["low"], rows[name]["high"]] == pytest.approx(estimate.interval(), rel=1e-4)
    derivative = lee.lie_derivative(about.network, about.inputs, "rotation", **METHOD)
    length = float(derivative.square().sum(1).mean().sqrt())
    assert rows["rotation"]["length"] == pytest.approx(length, rel=1e-4)
    assert rows["rotation"]["per_pixel"] == pytest.approx(
        length / 8, rel=1e-4
    )  # the border is 8 pixels from the middle
    assert rows["brightness"]["per_pixel"] is None
    value, low, high, _ = found["errors"]["references"]["other"]["ratios"]["rotation"]
    other = lee.lie_derivative(Small(1), about.inputs, "rotation", **METHOD).square().sum(1).mean()
    assert value == pytest.approx(length**2 / float(other), rel=1e-4)
    assert low < value < high


def test_curves_have_the_lie_derivative_as_their_slope(found: dict[str, Any]) -> None:
    about = given()
    errors = lee.equivariance_gram(about.network, about.inputs, **PLAIN).lee_per_image("rotation")
    worst = [curve for curve in found["curves"] if curve["kind"] == "worst"]
    assert {curve["image"] for curve in worst} == {int(errors.argmax())}
    assert {curve["motion"] for curve in worst} == set(measuring.CURVES)
    for curve in worst:
        slope = lee.lie_derivative(about.network, about.inputs[[curve["image"]]], curve["motion"], **METHOD)[0]
        first = int(about.network(about.inputs[[curve["image"]]])[0].argmax())
        assert curve["slopes"][0] == pytest.approx(float(slope[first]), rel=1e-3, abs=1e-5)
        assert curve["classes"][0] == (("cat", "dog")[first] if first < 2 else f"output {first}")
        assert curve["t"][measuring.POINTS] == 0


def test_parts_are_exact_sums(found: dict[str, Any]) -> None:
    for part in found["layers"]:
        assert sum(part["families"].values()) == pytest.approx(1, abs=1e-3)
        assert part["n"] == 3
    for shares in found["maps"]["shares"]:
        assert sum(map(sum, shares)) == pytest.approx(1, abs=1e-3)
    rows = found["discrete"]["rows"]
    about = given()
    kept = lee.metrics.consistency(about.network, about.inputs, boundary="reflect", max_shift=1)
    assert rows["consistency"]["value"] == pytest.approx(kept.value)
    right = (about.network(about.inputs).argmax(1) == torch.arange(5)).double().mean()
    assert found["discrete"]["accuracy"]["value"] == pytest.approx(float(right))


def test_an_interrupted_report_goes_on_and_another_starts_anew(
    tmp_path: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    layers = measuring.PARTS["layers"]
    monkeypatch.setitem(measuring.PARTS, "layers", stopped)
    with pytest.raises(KeyboardInterrupt):
        reports.measured(given(), tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.json", "errors.json"]
    (tmp_path / "curves.json").write_text('{"key": "')  # half a file counts as none
    monkeypatch.setitem(measuring.PARTS, "layers", layers)
    monkeypatch.setitem(measuring.PARTS, "errors", lambda *_: pytest.fail("measured again"))
    assert reports.measured(given(), tmp_path, progress=False) == found
    other = given(described={**given().described, "seed": 1})
    with pytest.raises(pytest.fail.Exception):
        reports.measured(other, tmp_path, progress=False)


def test_sentences_follow_from_the_numbers(found: dict[str, Any]) -> None:
    text = " ".join(reports.meaning(found))
    rows = {row["motion"]: row for row in found["errors"]["rows"]}
    assert f"by {sentences.shown(rows['translation_x']['length'] / 8)} when the image moves by one pixel" in text
    assert f"by {sentences.shown(rows['rotation']['length'] * math.pi / 180)} when it turns by one degree" in text
    assert "Only 5 images were measured" in text
    assert "checked on the first images: forward mode" in text
    changed = copy.deepcopy(found)
    changed["about"]["n"] = 64
    changed["errors"]["verification"] = "not verified: x"
    changed["errors"]["references"]["other"]["ratios"]["rotation"] = [3.0, 2.0, 5.0, 0.001]
    changed["errors"]["references"]["other"]["ratios"]["translation_x"] = [0.5, 0.2, 0.9, 0.01]
    changed["errors"]["directions"][0]["spread"], changed["errors"]["directions"][-1]["spread"] = 80, 10
    for curve in changed["curves"]:
        curve["flips"], curve["predicted_flips"] = [None, None], [None, math.pi / 18]
    text = " ".join(reports.meaning(changed))
    assert "Only" not in text
    assert re.search(r"respects most is \d+ % [a-z ]+ \(these images don't determine it well\)", text)
    assert re.search(r"respects least is \d+ % [a-z ]+\.", text)
    assert "do not rely on them" in text
    assert "is 3.0 times that of other on the same images (95 % interval 2.0 to 5.0): more than it." in text
    assert "0.50 times that of other on the same images (95 % interval 0.20 to 0.90): less than it." in text
    assert (
        "stays the same up to 15° of rotation, the largest angle that was tried; the derivative alone predicts 10°"
        in text
    )
    changed["errors"]["references"]["other"]["ratios"]["rotation"][3] = 0.06
    assert "(95 % interval 2.0 to 5.0): not clearly different from it." in " ".join(reports.meaning(changed))


def test_the_factor_between_directions_is_told_where_images_that_did_not_choose_them_tell_it(
    found: dict[str, Any],
) -> None:
    unknown = "By how much the error differs between the two, these images don't tell"
    for factor, told in (
        (
            [7.0, 2.0, 25.0, 0.01],
            "Between the two the error differs by a factor of 7.0, 95 % interval 2.0 to 25, on images that",
        ),
        ([7.0, 0.5, 98.0, 0.2], f"{unknown}."),
        ([7.0, 2.0, 25.0, 0.06], f"{unknown}."),
        ([7.0, None, None, 0.2], f"{unknown}."),
        (None, f"{unknown}."),
    ):
        changed = copy.deepcopy(found)
        changed["errors"]["factor"] = factor
        assert told in " ".join(reports.meaning(changed))
    changed["errors"]["directions"] = []
    assert "respects most and least, these images don't tell: there are too few of them." in " ".join(
        reports.meaning(changed)
    )


def test_two_outputs_and_few_images_have_no_directions() -> None:
    """Two probabilities sum to 1, so 5 images show five of six directions; the least error was rounding, a factor of 10¹⁶."""
    network = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2), torch.nn.Softmax(1)).double().eval()
    )
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = lee.equivariance_gram(network, x, output="logits", progress=False)
    assert measuring._directions(gram) == {"directions": [], "factor": None}


def test_the_page_is_one_file_that_asks_for_no_other(found: dict[str, Any]) -> None:
    about = copy.deepcopy(found)
    about["about"]["model"] = "<b>bold</b>"
    text = reports.written(about, given().inputs, ["lee measure '<x>'"])
    assert len(text) < 5e6
    elements = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:)", elements)
    assert "default-src 'none'" in text
    assert "<b>bold" not in text
    assert "&lt;x&gt;" in text
    assert text.count('class="chart"') == 1 + 6 + 2 * 2  # references, curves, two of each decomposition
    for sentence in reports.meaning(found)[1:3]:
        assert sentence in elements


FACTORY = """
import torch
from torch import nn
def plain(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
def dense(): return nn.Conv2d(3, 2, 3, padding=1)
def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
class Cut(nn.Module):
    def forward(self, x): raise ValueError("this one fails")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "report_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine").mkdir()
    for i in range(2):
        picture = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(i))
        Image.fromarray((picture.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / "mine" / f"{i}.png")
    return tmp_path


def test_a_folder_of_one_s_own_without_labels(here: Path) -> None:
    command = [
        "report",
        "report_models:plain",
        "--images",
        "imagefolder:mine",
        "--n",
        "2",
        "--size",
        "16",
        "--reference",
        "none",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads((here / "report.json").read_text())
    assert found["discrete"]["accuracy"] is None
    assert found["errors"]["references"] == {}
    assert "classified" not in result.stdout
    assert (here / "report.html").stat().st_size < 5e6
    assert not (here / "report.html.parts").exists()
    shown = (here / "report.html").read_text()
    assert "lee measure report_models:plain --images imagefolder:mine --n 2 --seed 0 --size 16" in shown


def test_an_edited_factory_starts_anew(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def stopped(given: measuring.Given, folder: Path, **_: Any) -> Any:
        keys.append(given.described["source_sha256"])
        raise InputError("enough")

    monkeypatch.setattr(reports, "measured", stopped)
    reading = f"import pathlib\n{FACTORY.replace('def plain', 'def first')}\n\ndef plain():\n    net = first()\n"
    reading += "    net.held = float(pathlib.Path('held.txt').read_text())\n    return net\n"
    for text, number in (
        (FACTORY, 1), (FACTORY.replace("nn.ReLU()", "nn.GELU()"), 1), (FACTORY, 1), (reading, 1), (reading, 2), (reading, 1),
    ):  # fmt: skip
        (here / "report_models.py").write_text(text)
        (here / "held.txt").write_text(str(number))
        sys.modules.pop("report_models", None)
        CliRunner().invoke(app, ["report", "report_models:plain", "--n", "1", "--size", "16", "--reference", "none"])
    assert keys[0] == keys[2] != keys[1]
    assert keys[3] == keys[5] != keys[4]
    sys.modules.pop("report_models", None)


def test_an_interrupted_report_goes_on_with_the_same_labels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(
        measuring,
        "PARTS",
        {"errors": lambda about, found: done.append("errors") or 1, "discrete": lambda about, found: len(done)},
    )
    about = given()
    about = replace(about, labels=torch.zeros(len(about.inputs), dtype=torch.long), class_names=("a", "b"))
    for other, times in (
        (about, 1), (about, 1), (replace(about, class_names=("b", "a")), 2), (about, 3),
        (replace(about, labels=about.labels + 1), 4), (replace(about, labels=None), 5), (replace(about, labels=None), 5),
    ):  # fmt: skip
        measuring.measured(other, tmp_path, progress=False)
        assert len(done) == times


def test_a_reference_with_other_weights_starts_anew_and_an_untrained_one_is_called_so(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def stopped(given: measuring.Given, folder: Path, **_: Any) -> Any:
        seen.append(given.described)
        assert list(given.references) == ["report_references:other", "resnet10t (untrained)"]
        raise InputError("enough")

    monkeypatch.setattr(reports, "measured", stopped)
    command = ["report", "report_models:plain", "--n", "1", "--size", "32"]
    command += ["--reference", "report_references:other", "--reference", "resnet10t"]
    for seed in (0, 1):
        source = f"def other():\n    torch.manual_seed({seed})\n    return plain()\n"
        source = f"import torch\nfrom report_models import plain\n\n{source}"
        (here / "report_references.py").write_text(source)
        sys.modules.pop("report_references", None)
        assert "enough" in CliRunner().invoke(app, command).stderr
    name = "weights_sha256 of report_references:other"
    assert seen[0][name] != seen[1][name]
    assert "resnet10t (untrained)" in seen[0]["references"]
    sys.modules.pop("report_references", None)


def test_a_dense_output_and_a_single_image(here: Path) -> None:
    command = "report report_models:dense --n 1 --size 12 --output logits --reference none --out d.html"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    found = json.loads((here / "d.json").read_text())
    assert "consistency" not in found["discrete"]["rows"]
    assert found["errors"]["directions"] == []
    assert found["maps"]["images"] == {"only": 0}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("report_models:Cut",), "this one fails"),
        (("report_models:plain", "--out", "page.txt"), "--out page.txt"),
        (("report_models:plain", "--images", "imagefolder:nowhere"), "no such folder"),
        (("report_models:plain", "--n", "1", "--reference", "none", "--reference", "zoo/vit-xs"), "so it stands alone"),
        (("report_models:plain", "--reference", "zoo/vit-z"), "Did you mean 'zoo/vit-"),
        (("report_models:plain", "--out", "report_models.py/x.html"), "can't be written"),
    ],
)
def test_wrong_input_ends_in_a_sentence(here: Path, arguments: tuple[str, ...], named: str) -> None:
    result = CliRunner().invoke(app, ["report", *arguments, "--n", "2", "--size", "16"])
    assert result.exit_code == 2, result.output
    assert named in result.stderr
    assert "Traceback" not in result.output
    assert not list(here.glob("*.html*"))


def test_an_empty_folder_is_refused(here: Path) -> None:
    (here / "empty").mkdir()
    result = CliRunner().invoke(app, ["report", "report_models:plain", "--images", "imagefolder:empty"])
    assert result.exit_code == 2
    assert "no images" in result.stderr


@pytest.mark.filterwarnings("ignore::lee.errors.ConstantOutputWarning")
def test_a_model_without_an_error_has_a_report_without_a_map(tmp_path: Path) -> None:
    """It lost all that had been measured before the map."""
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Threshold(2.0, 0.5), nn.Flatten())
    found = reports.measured(given(network=blind, references={}), tmp_path, progress=False)
    assert found["maps"] is None
    assert "no place of them holds an error" in reports.written(found, given().inputs, [])
