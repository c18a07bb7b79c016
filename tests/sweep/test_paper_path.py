"""The way of the profile `paper-mini` without a network: the paper's names, weights of one's own, photographs, a chapter."""

import csv
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from timm.models._hub import save_for_hf
from typer.testing import CliRunner, Result

import lee
from lee import datasets, models
from lee.cli import app
from lee.sweep import results, tasks

ROOT = Path(__file__).resolve().parents[2]
#: By the paper's names; the last one's weights are damaged.
SMALL = ("regnety_002", "regnetx_002", "xcit_nano_12_p16_224", "mobilenetv3_small_075")
CHAPTER = "07_case_studies"


def today() -> list[str]:
    """The names that timm has for them now."""
    with (results.folder() / "paper_names.csv").open(encoding="utf-8") as file:
        known = {row["paper"]: row["timm"] for row in csv.DictReader(file)}
    return [known[name] for name in SMALL]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs where ImageNet would lie, and a folder of weights that nobody else has, the last of them cut short."""
    photographs = Path(os.environ.get("LEE_DATA", "none")) / "imagenet-sample"
    if not photographs.is_dir():
        pytest.skip("needs the 200 photographs in LEE_DATA/imagenet-sample")
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    (tmp_path / "data" / "imagenet" / "val").symlink_to(photographs.resolve(), target_is_directory=True)
    for seed, name in enumerate(today()):
        torch.manual_seed(seed)
        save_for_hf(timm.create_model(name), str(tmp_path / "weights" / name), safe_serialization=True)
    damaged = tmp_path / "weights" / today()[-1] / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    monkeypatch.setenv("LEE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LEE_WEIGHTS", str(tmp_path / "weights"))
    tasks.forget()
    return tmp_path


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def smaller(path: Path, images: int, side: int) -> dict[str, Any]:
    """The sweep of the profile with other models, and fewer and smaller images; all else as it is."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text())
    for entry in spec["measurements"].values():
        for one in entry if isinstance(entry, list) else [entry]:
            one["n"] = images
    return {**spec, "models": today(), "defaults": {**spec["defaults"], "size": side}}


@pytest.mark.slow
def test_from_the_paper_s_names_to_an_executed_chapter(place: Path) -> None:
    regnety, regnetx, xcit, damaged = today()
    spec, table = place / "mini.yaml", place / "mini.parquet"
    spec.write_text(yaml.safe_dump(smaller(results.folder() / "paper-mini.yaml", 3, 64)))
    swept = command("sweep", spec, "--quiet", "--threads", 1)
    assert swept.exit_code == 1, swept.output  # as one model failed
    found = results.load(table)
    assert set(found.errors["model"]) == {damaged}
    assert all("damaged" in error for error in found.errors["error"][found.errors["weights"] == "trained"])
    check_numbers(place, found, regnetx)
    again = command("sweep", spec, "--quiet", "--threads", 1)
    assert "0 tasks measured" in again.output

    profile = yaml.safe_load((ROOT / "book" / "profiles" / "paper-mini.yaml").read_text())
    given = profile["chapters"][CHAPTER]
    assert given["table"] == "paper-mini"
    given |= {"table": str(table), "remeasure": False, "size": [[regnety, regnetx], [xcit, damaged]]}
    (place / "mine.yaml").write_text(yaml.safe_dump({"chapters": {CHAPTER: given}}))
    copy = place / "copy"
    made = command("book", "--profile", place / "mine.yaml", "-c", CHAPTER, "--no-render", "--out", copy)
    assert made.exit_code == 0, made.output
    check_chapter(copy / "book" / f"{CHAPTER}.ipynb", found, regnety, regnetx)


def check_numbers(place: Path, found: results.Results, name: str) -> None:
    """The table has what the library measures on timm's network with the weights of the file."""
    net = timm.create_model(name)
    net.load_state_dict(load_file(place / "weights" / name / "model.safetensors"))
    config = net.pretrained_cfg
    model = models.Normalized(net.eval(), config["mean"], config["std"])
    photos = datasets.load("imagefolder:imagenet/val", n=3, size=64).images
    gram = lee.equivariance_gram(model, photos, generators=lee.geometry.generators.AFFINE, progress=False)
    stored = found.gram(name, measurement="main").per_image
    torch.testing.assert_close(stored, gram.per_image, rtol=1e-3, atol=1e-6 * float(stored.max()))


def check_chapter(path: Path, found: results.Results, first: str, second: str) -> None:
    """The chapter compares the two networks by the ratio of their errors, and says which one it could not compare."""
    text = str(nbformat.read(path, as_version=4))
    main = found.select(measurement="main", weights="trained")
    errors = main.per_image("translation_x") + main.per_image("translation_y")
    ratio = errors[first].mean() / errors[second].mean()
    assert f"{ratio:.2f}" in text
    assert "1 pairs are not in the table" in text
