"""The paper's models by today's names, and the profiles that ask for them."""

import csv
from pathlib import Path

import pytest
import timm
import yaml
from timm.models import _registry

from lee import sweep
from lee.sweep import results
from lee.sweep.spec import SweepSpec

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "book" / "profiles"


def names() -> list[dict[str, str]]:
    with (results.folder() / "paper_names.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spec(name: str) -> SweepSpec:
    return sweep.load(results.folder() / f"{name}.yaml")


def test_every_one_of_the_paper_s_names_has_weights_today_or_none() -> None:
    rows = names()
    assert len(rows) == len({row["paper"] for row in rows}) == 483
    without = {row["paper"] for row in rows if row["by"] in ("gone", "no weights")}
    assert without == {"gluon_xception65", "mixnet_xxl", "ig_resnext101_32x48d"}
    known = set(timm.list_models(pretrained=True))
    for row in rows:
        assert (row["timm"] in known) == (row["paper"] not in without), row


def test_the_mapping_agrees_with_timm_s_own_of_retired_names() -> None:
    """timm gives two models with 21k classes, and three sizes of one family, another's weights."""
    astray = {"mixer_b16_224_in21k", "mixer_l16_224_in21k"} | {f"ig_resnext101_32x{n}d" for n in (16, 32, 48)}
    retired = _registry._deprecated_models
    for row in names():
        paper, today = row["paper"], row["timm"]
        if paper in retired:
            assert (today == retired[paper] or today.startswith(f"{retired[paper]}.")) == (paper not in astray), row
        elif today and not paper.endswith(("_sam_224", "_in22ft1k")):
            assert today.partition(".")[0] == paper, row


@pytest.mark.parametrize("name", ["paper", "paper-mini", "ood-paper"])
def test_sweeps_name_models_that_timm_has_weights_for(name: str) -> None:
    assert set(spec(name).models) <= set(timm.list_models(pretrained=True))


def test_the_paper_s_sweep_has_its_core_models() -> None:
    core = [row["timm"] for row in names() if row["list"] == "core"]
    assert list(spec("paper").models[: len(core)]) == core
    assert len(core) == 83


@pytest.mark.parametrize("profile", ["paper", "paper-mini"])
def test_chapters_compare_models_that_the_sweep_measures(profile: str) -> None:
    chapters = yaml.safe_load((PROFILES / f"{profile}.yaml").read_text())["chapters"]
    for chapter in ("06_architectures_after_training", "07_case_studies"):
        given = chapters[chapter]
        measured = set(spec(given["table"]).models)
        groups = [
            group for key in ("contests", "blur", "smooth", "size", "data", "recipe") for group in given.get(key) or []
        ]
        assert groups
        for group in groups:
            assert set(group) <= measured, (chapter, set(group) - measured)
