"""The source archive builds the wheel, and the wheel works in a fresh environment without the repository."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
import torch

import lee
from lee import datasets, models

pytestmark = pytest.mark.xdist_group("archives")  # its fixtures are made once

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 2**20


def run(command: Sequence[str | Path], folder: Path) -> str:
    """The output of a command that sees nothing of this checkout but what it is given."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LEE_DATA"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"PYTHONNOUSERSITE": "1"}
    done = subprocess.run([str(c) for c in command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Build in this environment, without isolation: nothing is downloaded."""
    run([sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", target], source)
    (archive,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from what is in it."""
    folder = tmp_path_factory.mktemp("dist")
    source = build("sdist", ROOT, folder / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return source, build("wheel", unpacked, folder / "wheel")


def test_the_wheel_carries_types_models_and_the_command(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        scripts = wheel.read(entry).decode()
    assert "lee = lee.__main__:main" in scripts
    assert {"lee/py.typed", "lee/data/zoo/zoo.yaml", "lee/data/claims.yaml"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "lee").rglob("*.py")} <= names
    weights = {PurePosixPath(name).stem for name in names if name.endswith(".safetensors")}
    assert weights == {path.stem for path in (ROOT / "data" / "zoo").glob("*.safetensors")}
    assert not [name for name in names if name.startswith(("tests/", "book/", "benchmarks/", "data/"))]
    assert not [name for name in names if name.endswith(".parquet")]
    assert archives[1].stat().st_size < 25 * MEGABYTE


def test_the_source_archive_carries_the_book_and_its_tables(archives: tuple[Path, Path]) -> None:
    """Whoever unpacks it can execute every chapter and run every test."""
    with tarfile.open(archives[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    tracked = [
        f for f in listed.stdout.splitlines() if f.startswith(("lee/", "book/", "data/", "tests/", "benchmarks/"))
    ]
    assert not sorted({f for f in tracked if (ROOT / f).is_file()} - names)
    assert {"README.md", "LICENSE", "Makefile", "requirements.txt", "_toc.yml", "_config.yml"} <= names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_installed_package_measures_a_zoo_model(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own: with this one's dependencies, and without this checkout."""
    home = tmp_path / "env"
    run([sys.executable, "-m", "venv", "--without-pip", home], tmp_path)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = ["install", "--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "--python", python, *install, archives[1]], tmp_path)
    (site,) = home.glob("**/site-packages")
    # As a plain line it adds the folder without its .pth files, one of which points at this checkout.
    (site / "dependencies.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    script = python.with_name("lee")
    options = ["--images", "patches", "--n", "2", "-g", "rotation", "-g", "translation_x", "--json"]
    measured = json.loads(run([script, "measure", "zoo/resnet-xs", *options], tmp_path))
    where = run([python, "-c", "import lee, lee.paths; print(lee.__file__, lee.paths.package_data())"], tmp_path)
    assert all(Path(path).is_relative_to(home) for path in where.split())

    images = datasets.load("patches", n=2, size=32, seed=0).images
    gram = lee.equivariance_gram(models.load("zoo/resnet-xs"), images, progress=False)
    values = {row["generator"]: row["lee"] for row in measured["results"]}
    assert values == {name: pytest.approx(gram.lee(name).value, rel=1e-5) for name in ("rotation", "translation_x")}
