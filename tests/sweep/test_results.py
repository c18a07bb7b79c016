"""Tables of sweeps, read: means and errors by hand, selections, pairs, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lee
from lee import datasets, models, sweep
from lee.errors import InputError
from lee.geometry.generators import AFFINE
from lee.statistics import EquivarianceGram
from lee.sweep import results, table
from lee.sweep.results import Results
from lee.sweep.table import Part

N = 5


def part(model: str, n: int = N, basis: tuple[str, ...] = tuple(g.name for g in AFFINE), **changes: Any) -> Part:
    """A task with random numbers that follow from its model's name."""
    random = np.random.default_rng([ord(c) for c in model])
    half = random.normal(size=(50, 9, 9))[:n, : len(basis), : len(basis)]
    described = {
        "model": model, "family": model.split("/")[1][0], "weights": "trained", "measurement": "main", "dataset": "digits",
        "split": "test", "output": "probabilities", "kernel": "fourier", "boundary": "reflect", "align_corners": False, "n": n,
        "seed": 0, "size": None, "measures": {}, "figures": {}, "weights_sha256": model, "data_sha256": "d", "basis": list(basis),
        "error": None, "warnings": [], "seconds": 1.5, **changes,
    }  # fmt: skip
    label = random.integers(0, 3, 50)[:n]
    columns = {
        "image": np.arange(n), "label": label, "prediction": np.ones(n, int), "correct": label == 1,
        "confidence": random.uniform(size=50)[:n], "output_square": random.uniform(1, 2, size=50)[:n],
        "eq_t": random.uniform(size=50)[:n],
    }  # fmt: skip
    origin = {"device": "cpu", "threads": 1, "commit": None, "lee_version": "1", "torch_version": "2"}
    return Part.of(
        f"{model}-{sorted(changes.items())}",
        described,
        origin,
        {**columns, **table.packed(half @ half.transpose(0, 2, 1))},
    )


@pytest.fixture
def found() -> Results:
    """Two models on two splits, one of them with logits too, and a failed one."""
    broken = part("zoo/c", basis=(), error="ValueError: no")
    broken = Part(broken.key, broken.described, broken.origin, broken.rows.slice(0, 1))
    return Results(
        (
            part("zoo/a"),
            part("zoo/a", split="train"),
            part("zoo/a", output="logits"),
            part("zoo/b"),
            part("zoo/b", split="train"),
            broken,
        )
    )


@pytest.fixture
def chosen(found: Results) -> Results:
    return found.select(split="test", output="probabilities", model=["a", "b"])


def test_a_table_by_path_is_the_one_that_was_written(found: Results, tmp_path: Path) -> None:
    table.write(table.encode(found.parts), tmp_path / "t.parquet")
    (tmp_path / "t.copy.parquet").write_bytes((tmp_path / "t.parquet").read_bytes())
    again = results.load(tmp_path / "t.parquet")  # a path is that of one file
    assert {p.key for p in again.parts} == {p.key for p in found.parts}
    for one, other in zip(again.parts, sorted(found.parts, key=lambda p: p.order), strict=True):
        assert (one.described, one.origin) == (other.described, other.origin)
        assert one.rows.equals(other.rows)


def test_lee_is_the_quadratic_form_of_the_mean_matrix(chosen: Results) -> None:
    frame = chosen.lee()
    assert set(frame["generator"]) == {n for n, g in lee.geometry.generators.NAMED.items() if g.is_spatial}
    assert len(frame) == 20
    c = np.array([0, 0, 0, 1, -1, 0])  # rotation: y ∂x - x ∂y over ∂x, ∂y, x∂x, y∂x, x∂y, y∂y
    packed = {p.described["model"]: p for p in chosen.parts}
    for model in ("zoo/a", "zoo/b"):
        triangles = np.stack([packed[model].rows[f"gram_{i}"].to_numpy() for i in range(21)], 1).astype(float)
        each = np.array([c @ table.unpacked(t[None], 6)[0] @ c for t in triangles])
        row = frame[(frame["model"] == model) & (frame["generator"] == "rotation")].iloc[0]
        assert row["lee"] == pytest.approx(each.mean())
        assert row["stderr"] == pytest.approx(each.std(ddof=1) / N**0.5)
        assert (row["n"], row["unit"]) == (N, "per radian²")
        square = packed[model].rows["output_square"].to_numpy()
        relative = chosen.select(model=model).lee("rotation", relative=True).iloc[0]
        assert relative["lee"] == pytest.approx((each / square).mean())
        assert relative["stderr"] == pytest.approx((each / square).std(ddof=1) / N**0.5)
        assert (chosen.per_image("rotation")[model] == each).all()


def test_mixtures_and_lists_of_generators(chosen: Results) -> None:
    mixture = 0.5 * lee.ROTATION + lee.SCALE
    frame = chosen.lee([mixture, "shear_x"])
    assert frame["generator"].tolist() == ["0.5*rotation + scale", "shear_x"] * 2
    assert frame["lee"].iloc[0] == pytest.approx(chosen.gram("zoo/a").lee(mixture).value)
    with pytest.raises(InputError, match="not a combination of the measured ones"):
        chosen.lee("brightness")
    both = Results((*chosen.parts, part("zoo/d", basis=("rotation", "brightness"))))
    assert both.lee().groupby("model")["generator"].nunique().to_dict() == {"zoo/a": 10, "zoo/b": 10, "zoo/d": 2}


def test_scores_are_means_with_standard_errors(chosen: Results) -> None:
    scores = chosen.scores().set_index("model")
    frame = chosen.frame
    for model in ("zoo/a", "zoo/b"):
        rows = frame[frame["model"] == model]
        right = (rows["label"] == 1).astype(float)
        assert scores.loc[model, "accuracy"] == pytest.approx(right.mean())
        assert scores.loc[model, "error"] == pytest.approx(1 - right.mean())
        assert scores.loc[model, "error_stderr"] == pytest.approx(right.std() / N**0.5)
        assert scores.loc[model, "eq_t"] == pytest.approx(rows["eq_t"].mean(), rel=1e-6)
        assert np.isnan(scores.loc[model, "loss"])
        assert np.isnan(scores.loc[model, "loss_stderr"])


def test_selection_by_value_list_and_pattern(found: Results) -> None:
    assert len(found.parts) == len(found.select().parts) == 6
    assert len(found.select(model="a").parts) == len(found.select(model="zoo/a").parts) == 3
    assert len(found.select(model="[ab]", split=["train"]).parts) == 2
    assert found.select(family="b").models == ("zoo/b",)
    assert found.models == ("zoo/a", "zoo/b", "zoo/c")
    assert found.images == N


def test_the_frame_has_a_row_per_task_and_image(found: Results) -> None:
    frame = found.frame
    assert len(frame) == 5 * N
    assert set(results.KEYS) < set(frame.columns)
    assert isinstance(frame["model"].dtype, pd.CategoricalDtype)
    counts = frame.groupby(["model", "split", "output"], observed=True).size()
    assert set(counts) == {N}


def test_failed_tasks_are_listed_and_left_out(found: Results) -> None:
    assert found.errors[["model", "error", "n"]].values.tolist() == [["zoo/c", "ValueError: no", 0]]
    assert "zoo/c" not in set(found.scores()["model"]) | set(found.lee()["model"]) | set(found.frame["model"])
    assert found.tasks["error"].isna().sum() == 5
    broken = found.select(model="c")
    assert broken.images == 0
    assert broken.lee().empty
    for read in (lambda: broken.frame, lambda: broken.per_image("rotation")):
        with pytest.raises(InputError, match="All of these tasks failed"):
            read()
    with pytest.raises(InputError, match="zoo/c failed: ValueError: no"):
        broken.gram()


def test_pairs_are_compared_image_by_image(chosen: Results) -> None:
    a, b = chosen.gram("zoo/a"), chosen.gram("zoo/b")
    assert isinstance(a, EquivarianceGram)
    direct, values = a.minus(b, "scale"), chosen.per_image("scale")
    gap = values["zoo/a"] - values["zoo/b"]
    assert direct.value == pytest.approx(gap.mean())
    assert direct.stderr == pytest.approx(gap.std() / N**0.5)


def test_pairs_use_the_images_that_both_have(chosen: Results) -> None:
    longer = Results((part("zoo/a", n=9), part("zoo/b")))
    assert longer.per_image("scale").shape == (N, 2)
    torch.testing.assert_close(
        torch.tensor(longer.per_image("scale").to_numpy()), torch.tensor(chosen.per_image("scale").to_numpy())
    )
    assert longer.per_image_of("correct").dtypes.tolist() == [np.float64] * 2
    assert longer.per_image_of("label")["zoo/b"].tolist() == chosen.select(model="b").frame["label"].tolist()


def test_other_images_are_not_paired() -> None:
    for change in ({"split": "train"}, {"seed": 1}, {"dataset": "mnist"}, {"data_sha256": "e"}):
        with pytest.raises(InputError, match=f"differ in {next(iter(change))}"):
            Results((part("zoo/a"), part("zoo/b", **change))).per_image("scale")


def test_matrices_carry_how_they_were_measured() -> None:
    found = Results((part("zoo/a", kernel="authors", align_corners=True), part("zoo/b", output="features")))
    a, b = found.gram("a"), found.matrix_per_model()["zoo/b"]
    assert (a.kernel, a.boundary, a.align_corners, a.output) == ("authors", "reflect", True, "probabilities")
    assert b.output == "features"
    with pytest.raises(InputError, match="paired comparison needs the same"):
        a.minus(b, "scale")


def test_provenance_lists_variants(found: Results) -> None:
    said = Results((*found.parts, part("zoo/d", data_sha256="e"))).provenance()
    assert said["data_sha256"] == "d, e"
    assert said["torch_version"] == "2"
    assert said["commit"] == ""
    assert not {"model", "weights_sha256", "seconds"} & said.keys()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.select(modle="a"), r"can't be selected by 'modle'\. Did you mean 'model'"),
        (lambda r: r.select(model="zoo/aa"), r"No task has model 'zoo/aa'\. Did you mean 'zoo/"),
        (lambda r: r.select(split="tests"), r"No task has split 'tests'\. Did you mean 'test'"),
        (lambda r: r.select(model="b", output="logits"), "No task has all of model='b', output='logits'"),
        (lambda r: r.gram("a"), r"3 tasks are left; select one by split \(test, train\); output \(logits, probabilities\)"),
        (lambda r: r.per_image("scale"), r"zoo/a has 3 tasks; select one by split"),
        (lambda r: r.matrix_per_model(), r"zoo/a has 3 tasks; select one by split"),
        (lambda r: r.select(split="test", output="probabilities").per_image_of("eqt"), r"no column 'eqt'\. Did you mean 'eq_t'"),
        (lambda r: r.select(split="test").lee("rotate"), r"Unknown generator 'rotate'\. Did you mean"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(found: Results, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(found)


def test_a_missing_table_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no table 'zoology'.*`lee sweep zoology\.yaml`"):
        results.load("zoology")
    with pytest.raises(InputError, match=r"There is no table .*none\.parquet. Make it with `lee sweep`"):
        results.load(tmp_path / "none.parquet")


def test_committed_tables_are_small_and_those_of_one_name_are_read_together() -> None:
    files = {path.stem: path for path in results.folder().glob("*.parquet")}
    assert all(path.stat().st_size < 4e6 for path in files.values())
    parts = [len(table.read(files[name])) for name in ("zoo", "zoo.checks", "zoo.outputs")]
    assert len(results.load("zoo").parts) == sum(parts) > max(parts)


def test_absolute_values_and_deviations_are_kept_per_image_where_they_were_asked_for(tmp_path: Path) -> None:
    """The mean of |L_X f| of each generator, as the released code takes it, and the variance's part of each image."""
    out = tmp_path / "some.parquet"
    way = {"dataset": "patches", "n": 5, "generators": ["translation_x", "rotation"]}
    measured = {"with": {**way, "measures": ["absolute", "deviation"]}, "without": way}
    spec = sweep.parse({"models": ["zoo/vit-xs"], "measurements": measured})
    sweep.run(spec, out, sweep.executor(0), progress=False)
    found, x = results.load(out), datasets.load("patches", n=5, seed=0).images
    model, asked = models.load("zoo/vit-xs"), found.select(measurement="with")
    expected = lee.lie_derivative(model, x, "rotation").abs().mean(1)
    assert asked.per_image_of("absolute_1")["zoo/vit-xs"].to_numpy() == pytest.approx(expected.numpy(), rel=1e-3)
    variance = model(x).detach().softmax(1).double().var(0).mean()
    assert asked.per_image_of("deviation")["zoo/vit-xs"].mean() == pytest.approx(float(variance), rel=1e-3)
    with pytest.raises(InputError, match="no column 'absolute_1'"):
        found.select(measurement="without").per_image_of("absolute_1")


def test_the_sum_over_several_generators_is_that_of_their_errors(chosen: Results) -> None:
    alone = [chosen.per_image(g) for g in ("rotation", "scale")]
    both = chosen.per_image(["rotation", "scale"])
    pd.testing.assert_frame_equal(both, sum(alone[1:], alone[0]))


def test_tasks_without_rows_say_so() -> None:
    whole = Part.of("k", {**part("zoo/a").described, "basis": []}, part("zoo/a").origin, {"image": np.arange(0)})
    with pytest.raises(InputError, match="None of these tasks has rows"):
        Results((whole,)).per_image("rotation")
