"""The project's files agree with each other: versions, the lock, the environment, the commands, the wheel."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TEXT = re.compile(r"\.(cff|cfg|css|html|ipynb|js|json|md|py|toml|txt|ya?ml)$|/(LICENSE|Makefile|run)$")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def declared() -> list[Requirement]:
    """The core's dependencies and those of every extra; an extra that takes in another one names this project."""
    metadata = project()["project"]
    groups = [metadata["dependencies"], *metadata["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in found if requirement.name != metadata["name"]]


@cache
def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [
        Requirement(line.rstrip(" \\"))
        for line in lines
        if line.strip() and not line.lstrip().startswith(("#", "--hash"))
    ]


def test_one_version_everywhere() -> None:
    version = project()["project"]["version"]
    module = ast.parse((ROOT / "lee" / "__init__.py").read_text())
    assigned = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    }
    assert assigned == {"__version__": version}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", version)


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert [a["family-names"] for a in paper["authors"]] == ["Gruver", "Finzi", "Goldblum", "Wilson"]
    assert paper["identifiers"][0]["value"] == "arXiv:2210.02984"
    assert citation["license"] == project()["project"]["license"] == "MIT"


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_every_declared_dependency_is_locked_within_its_bounds(requirement: Requirement) -> None:
    pins = [pin for pin in locked() if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert pins, f"{requirement.name} is missing from requirements.txt: run `make lock`"
    for pin in pins:
        (exact,) = pin.specifier
        assert requirement.specifier.contains(exact.version, prereleases=True), f"{pin} against {requirement}"


def test_the_lock_is_only_exact_pins() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "make lock" in text[:200]
    for pin in locked():
        (exact,) = pin.specifier
        assert exact.operator == "==", pin
        assert pin.url is None, pin
    assert not re.findall(r"^-.*", text, re.MULTILINE), "options, such as an index, don't belong here"


def test_the_lock_has_no_more_than_one_pin_for_this_interpreter() -> None:
    active = [canonicalize_name(pin.name) for pin in locked() if pin.marker is None or pin.marker.evaluate()]
    assert sorted(active) == sorted(set(active))


def test_the_conda_environment_installs_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"][0] == "conda-forge"
    assert set(environment["channels"]) <= {"conda-forge", "nodefaults"}
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert pip == ["-r requirements.txt"]  # with hashes: pip then refuses to install a folder beside it
    assert {line.split()[0] for line in plain} == {"python", "pip", "make"}, "libraries belong in the lock"
    (python,) = (SpecifierSet(line.split()[1]) for line in plain if line.startswith("python"))
    ours = SpecifierSet(project()["project"]["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20) if python.contains(f"3.{minor}")]
    assert minors
    assert all(ours.contains(minor) for minor in minors)


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+)\s*[:?]?= *(.*)$", text, re.MULTILINE))
    phony = " ".join(re.findall(r"^\.PHONY: *(.*)$", text, re.MULTILINE))
    return set(re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], phony).split())


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"^  ([a-z]+) +\S", shown, re.MULTILINE)) == make_targets()


@pytest.mark.parametrize("name", ["plain", "mit Leerzeichen", "Übung & 'Maß' (1)"])
def test_make_works_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """Each command is a stand-in that writes down how it was called."""
    folder = tmp_path / name
    (folder / ".venv" / "bin").mkdir(parents=True)
    for file in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    stand_in = f'#!/bin/sh\necho "$(basename "$0")" "$@" >> {shlex.quote(str(folder / "calls"))}\n'
    for command in ("python", "lee", "ruff", "lint-imports", "mypy", "jupyter", "uv", "bandit"):
        (folder / ".venv" / "bin" / command).write_text(stand_in)
        (folder / ".venv" / "bin" / command).chmod(0o755)
    targets = [
        "install",
        "lint",
        "types",
        "unit",
        "notebooks",
        "site",
        "browser",
        "book",
        "refresh",
        "explore",
        "lab",
        "format",
    ]
    ran = subprocess.run(
        ["make", f"PYTHON={folder}/.venv/bin/python", *targets, "lock", "bench", "clean"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    calls = (folder / "calls").read_text()
    for call in ("python -m pip install", "ruff check .", "lint-imports", "lee book --profile quick", "mypy", "uv pip"):
        assert f"\n{call}" in calls
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".pre-commit-config.yaml"])
def test_documents_name_targets_that_exist(name: str) -> None:
    named = set(re.findall(r"(?:`|^ *(?:\$ )?)make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert named
    assert named <= make_targets()


def test_continuous_integration_runs_the_readme_command() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("\nmake test")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "make test" in (ROOT / "README.md").read_text()
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "tests.yml").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_workflows_start_from_read_only_permissions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", action) for action in actions)


def test_tracked_files_are_well_formed(tracked: list[Path]) -> None:
    problems = []
    for path in (p for p in tracked if TEXT.search(p.as_posix())):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        if text and not text.endswith("\n"):
            problems.append(f"{name}: no newline at the end")
        if re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
            problems.append(f"{name}: conflict markers")
        if path.suffix != ".ipynb" and re.search(r"[ \t]+$", text, re.MULTILINE):
            problems.append(f"{name}: trailing white space")
        parsers = {".yaml": yaml.safe_load, ".yml": yaml.safe_load, ".cff": yaml.safe_load}
        parsers |= {".json": json.loads, ".ipynb": json.loads, ".toml": tomllib.loads}
        try:
            parsers.get(path.suffix, len)(text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
        except yaml.YAMLError as error:
            problems.append(f"{name}: {error}")
    assert not problems, "\n".join(problems)


def test_actions_are_pinned_by_commit_and_packages_by_hash() -> None:
    used = [
        line.split("uses:")[1].strip()
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line) for line in used), used
    locked = (ROOT / "requirements.txt").read_text()
    pinned = re.findall(r"^[\w.-]+==\S+.*\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", locked, re.M)
    assert len(pinned) > 100
    assert all(pinned)
