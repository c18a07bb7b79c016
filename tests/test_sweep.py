"""Sweeps: the numbers are those of the library, what is finished is never measured again, failures are rows."""

import errno
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sweeps import SPEC, keys, rows, run, spec_of, workplace, write_spec

import lee
from lee import datasets, metrics, models, results, sweep
from lee.errors import InputError
from lee.sweep import table, tasks

ROOT = Path(__file__).resolve().parents[1]
ROUNDED = 2**-16 + 2**-22  # what rounding to 16 bits may change, and float32 itself

here = pytest.fixture(workplace)


# what is measured


def test_rows_are_what_the_library_measures(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    model, images = models.load("mine:b"), datasets.load("patches", n=3, size=12)
    gram = lee.equivariance_gram(
        model, images.images, generators=lee.generators.AFFINE, output="logits", progress=False
    )
    mine = results.load(here / "t.parquet").select(model="mine:b")
    stored = mine.gram(measurement="main", output="logits")
    assert stored.basis == gram.basis
    torch.testing.assert_close(stored.per_image, gram.per_image, rtol=ROUNDED, atol=0)
    frame = mine.select(measurement="motions").frame
    scores = model(images.images).detach().double()
    chances = scores.exp() / scores.exp().sum(1, keepdim=True)
    np.testing.assert_allclose(frame["confidence"], chances.max(1).values, rtol=ROUNDED)
    np.testing.assert_allclose(frame["output_square"], chances.square().mean(1), rtol=ROUNDED)
    assert frame["prediction"].tolist() == scores.argmax(1).tolist()
    for measure, name in ((metrics.eq_t, "eq_t"), (metrics.eq_t_frac, "eq_t_frac"), (metrics.eq_r, "eq_r")):
        assert frame[name].mean() == pytest.approx(measure(model, images.images, draws=4).value, rel=ROUNDED)
    agreed = metrics.agreement(model, images.images, shifts=4, max_shift=4, boundary="reflect", reference="image")
    assert frame["consistency"].tolist() == agreed.tolist()


def test_a_prediction_is_right_only_among_the_data_sets_own_classes(here: Path) -> None:
    ways = {"all": {"dataset": "digits", "n": 40, "size": None, "generators": ["rotation"]}}
    (here / "digits.py").write_text(
        "from torch import nn\n"
        "def net(classes, names=None):\n"
        "    made = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        "    made.class_names = names\n"
        "    return made\n"
        "def ten(): return net(10, '0123456789')\n"
        "def reversed(): return net(11, '-9876543210')\n"
        "def unnamed(): return net(10)\n"
        "def words(): return net(10, 'zero one two three four five six seven eight nine'.split())\n"
        "def short(): return net(11, '0123456789')\n"
    )
    names = ("ten", "reversed", "unnamed", "words", "short")
    run(sweep.parse({"models": [f"digits:{name}" for name in names], "measurements": ways}), here / "t.parquet")
    frame = results.load(here / "t.parquet").frame
    ten, turned, *others = (frame[frame["model"] == f"digits:{name}"] for name in names)
    images = datasets.load("digits", n=40)
    scores = models.load("digits:ten")(images.images).detach()
    assert ten["correct"].tolist() == (scores.argmax(1) == images.labels).tolist()
    loss = -scores.log_softmax(1)[range(40), images.labels]
    np.testing.assert_allclose(ten["loss"], loss, rtol=ROUNDED)
    assert turned["correct"].tolist() == (turned["prediction"] == 10 - turned["label"]).tolist()
    for other in others:
        assert other["correct"].isna().all()
        assert other["loss"].isna().all()
        assert other["prediction"].notna().all()


def test_ten_classes_of_other_names_are_neither_right_nor_wrong(here: Path) -> None:
    """The zoo's models tell CIFAR-10's classes; digits are ten as well."""
    ways = {"d": {"dataset": "rgb:digits", "n": 3, "generators": ["rotation"], "weights": "initial"}}
    run(sweep.parse({"models": ["zoo/mixer-xs"], "measurements": ways}), here / "t.parquet")
    frame = results.load(here / "t.parquet").frame
    assert frame["label"].notna().all()
    assert frame["correct"].isna().all()
    assert frame["loss"].isna().all()


def test_the_zoo_s_stored_predictions_are_right_where_they_name_the_label() -> None:
    """What was measured before classes were compared by name, on the set that the zoo was trained on."""
    for part in results.load("zoo").parts:
        if not part.failed:
            same = [
                a == b for a, b in zip(part.rows["label"].to_pylist(), part.rows["prediction"].to_pylist(), strict=True)
            ]
            assert part.rows["correct"].to_pylist() == same


def test_features_are_what_the_classifier_reads(here: Path) -> None:
    ways = {"f": {"dataset": "patches", "n": 2, "output": "features", "weights": "initial", "generators": ["rotation"]}}
    run(sweep.parse({"models": ["zoo/vit-s", "mine:a"], "measurements": ways}), here / "t.parquet")
    found = results.load(here / "t.parquet")
    model, images = models.load("zoo/vit-s", trained=False), datasets.load("patches", n=2, size=32).images
    read = []
    model.net.head.register_forward_pre_hook(lambda _, given: read.append(given[0].detach()))
    model(images)
    part = found.select(model="zoo/vit-s").frame
    np.testing.assert_allclose(part["output_square"], read[0].double().square().mean(1), rtol=ROUNDED)
    assert "weights: trained" in found.errors["error"].item()


def test_every_model_sees_the_same_images_and_motions(here: Path) -> None:
    run(spec_of(models=["mine:a", "mine:c"]), here / "t.parquet")
    a, c = (results.load(here / "t.parquet").select(model=f"mine:{n}", measurement="motions").frame for n in "ac")
    assert a["label"].tolist() == c["label"].tolist()
    again = here / "again.parquet"
    run(spec_of(models=["mine:c", "mine:a"]), again)
    assert rows(again).equals(rows(here / "t.parquet"))


# the table


@pytest.mark.parametrize("k", [1, 2, 6, 9])
def test_packing_keeps_every_entry_and_short_bases_come_first(k: int) -> None:
    half = np.random.default_rng(k).normal(size=(4, 9, 9))
    gram = half @ half.transpose(0, 2, 1)
    columns = table.packed(gram[:, :k, :k])
    assert list(columns) == [f"gram_{i}" for i in range(k * (k + 1) // 2)]
    whole = table.packed(gram)
    assert all((columns[name] == whole[name]).all() for name in columns)
    assert (table.unpacked(np.stack(list(columns.values()), 1), k) == gram[:, :k, :k]).all()


def test_rounding_is_to_the_nearest_of_sixteen_bits() -> None:
    exact = np.random.default_rng(0).normal(size=10000).astype(np.float32)
    near = table.rounded(exact)
    mantissa, exponent = np.frexp(near.astype(np.float64))
    assert (mantissa * 2**16 == np.round(mantissa * 2**16)).all()
    assert (np.abs(near - exact) <= 2.0 ** (exponent - 17)).all()
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    assert (table.rounded(odd).view(np.uint32) == odd.view(np.uint32)).all()


def test_any_reader_of_parquet_sees_the_same_numbers(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    plain, own = rows(here / "t.parquet"), results.load(here / "t.parquet").frame
    assert len(plain) == len(own) == 2 * 3 * 3
    for column in ("model", "output", "image", "confidence"):
        assert plain[column].tolist() == own[column].tolist()
    assert plain["gram_20"].notna().sum() == 12  # six generators
    assert plain["gram_0"].notna().all()


def test_provenance_is_stored_once_and_says_everything(here: Path) -> None:
    run(spec_of(), here / "t.parquet")
    found = results.load(here / "t.parquet").tasks
    model = models.load("mine:a")
    assert set(found[found["model"] == "mine:a"]["weights_sha256"]) == {lee.provenance.weights_sha256(model)}
    assert set(found["data_sha256"]) == {datasets.load("patches", n=3, size=12).sha256}
    assert set(found["torch_version"]) == {lee.provenance.versions()["torch_version"]}
    assert (found["seconds"] > 0).all()
    metadata = pq.read_schema(here / "t.parquet").metadata[b"lee.sweep"]
    assert metadata.count(b"torchvision_version") == 1


# again and again


def test_a_second_run_measures_nothing_and_changes_no_byte(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = here / "t.parquet"
    first = run(spec_of(), out)
    assert (first.measured, first.kept) == (6, 0)
    before, stamp = out.read_bytes(), out.stat().st_mtime_ns
    again = run(spec_of(), out)
    assert (again.measured, again.kept) == (0, 6)
    assert out.read_bytes() == before
    assert out.stat().st_mtime_ns == stamp
    assert table.encode(reversed(list(table.read(out).values()))) == before
    assert sorted(p.name for p in here.iterdir() if p.suffix != ".py" and p.name != "__pycache__") == ["t.parquet"]


def test_a_model_with_new_weights_is_measured_again_alone(here: Path) -> None:
    out, spec = here / "t.parquet", spec_of(models=["mine:a", "mine:changing"])
    run(spec, out)
    before = keys(out)
    source = (here / "mine.py").read_text()
    (here / "mine.py").write_text(source.replace("SEED = 0", "SEED = 12"))
    sys.modules.pop("mine")
    report = run(spec, out)
    assert (report.measured, report.kept) == (3, 3)
    after = keys(out)
    assert Counter(after.values()) == {"mine:a": 3, "mine:changing": 3}
    assert {before[key] for key in before.keys() & after.keys()} == {"mine:a"}
    (here / "mine.py").write_text(source)


def test_another_activation_with_the_same_weights_is_another_model(here: Path) -> None:
    spec = spec_of(models=["mine:a"])
    before = {task.key for task in sweep.plan(spec.models, spec.measurements)}
    (here / "mine.py").write_text((here / "mine.py").read_text().replace("nn.GELU()", "nn.SiLU()"))
    sys.modules.pop("mine")
    tasks.forget()
    after = {task.key for task in sweep.plan(spec.models, spec.measurements)}
    assert not before & after


@pytest.mark.parametrize(
    "change",
    [{"n": 4}, {"seed": 1}, {"kernel": "central"}, {"output": "logits"}, {"generators": ("scale",)}, {"size": 16}],
)
def test_the_key_follows_the_measurement(here: Path, change: dict[str, Any]) -> None:
    task = next(sweep.plan(["mine:a"], spec_of().measurements))
    assert replace(task, measurement=replace(task.measurement, **change)).key != task.key
    assert replace(task, family="another").key == task.key
    assert replace(task, data_sha256="0").key != task.key


def test_a_larger_sweep_keeps_what_is_there_and_drops_what_nobody_wants(here: Path) -> None:
    out = here / "t.parquet"
    run(spec_of(), out)
    larger = run(spec_of(models=["mine:b", "mine:c"]), out)
    assert (larger.measured, larger.kept) == (3, 3)
    assert set(keys(out).values()) == {"mine:b", "mine:c"}


def test_a_limit_leaves_other_models_alone(here: Path) -> None:
    out = here / "t.parquet"
    run(spec_of(), out, limit="*:a")
    assert set(keys(out).values()) == {"mine:a"}
    report = run(spec_of(), out, limit="mine:b")
    assert (report.measured, report.kept) == (3, 0)
    assert set(keys(out).values()) == {"mine:a", "mine:b"}
    assert run(spec_of(), out).measured == 0
    with pytest.raises(InputError, match=r"matches 'mine:d'.*Did you mean 'mine:"):
        run(spec_of(), out, limit="mine:d")


def test_finished_tasks_of_an_interrupted_run_are_not_measured_again(here: Path) -> None:
    out, spec = here / "t.parquet", spec_of()

    def two(wanted: Any) -> Any:
        yield from sweep.here(wanted[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(spec, out, two, progress=False)
    folder = here / "t.parquet.tasks"
    assert len(list(folder.glob("*.parquet"))) == 2
    assert not out.exists()
    broken = sorted(folder.glob("*.parquet"))[0]
    broken.write_bytes(broken.read_bytes()[:100])  # as a failing disk would leave it
    (folder / ".x.parquet.1.tmp").write_bytes(b"left by a killed run")
    limited = run(spec, out, limit="mine:b")
    assert limited.measured == 3
    assert broken.exists(), "a limited run leaves the other models' finished tasks"
    report = run(spec, out)
    assert (report.measured, report.kept) == (2, 4)
    assert not folder.exists()
    whole = here / "whole.parquet"
    run(spec, whole)
    assert rows(out).equals(rows(whole))


def test_a_new_family_relabels_without_measuring(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = here / "t.parquet"
    run(spec_of(), out)
    monkeypatch.setattr(tasks, "family_of", lambda name: "cousins")
    assert run(spec_of(), out).measured == 0
    assert set(results.load(out).tasks["family"]) == {"cousins"}


# what goes wrong


def test_a_failing_model_is_a_row_with_its_error(here: Path) -> None:
    out = here / "t.parquet"
    spec = spec_of(models=["mine:unbuildable", "mine:Failing", "mine:Undefined", "mine:a"])
    report = run(spec, out)
    assert report.measured == 12
    said = {model: error for model, _, error in report.failures}
    assert said == {
        "mine:unbuildable": "RuntimeError: no such part",
        "mine:Failing": "ValueError: this network always fails",
        "mine:Undefined": "InputError: The Lie derivatives are not finite.",
    }
    frame = rows(out)
    assert frame.groupby("model", observed=True).size().to_dict() == {"mine:a": 9, **dict.fromkeys(said, 3)}
    assert frame["error"].dropna().nunique() == 3
    assert frame[frame["error"].notna()]["image"].isna().all()
    before = out.read_bytes()
    assert run(spec, out).measured == 0
    assert out.read_bytes() == before
    assert run(spec, out, retry=True).measured == 9


def test_a_model_that_can_be_loaded_now_replaces_its_error(here: Path) -> None:
    out, spec = here / "t.parquet", spec_of(models=["mine:a", "mine:unbuildable"])
    assert len(run(spec, out).failures) == 3
    (here / "mine.py").write_text(
        (here / "mine.py").read_text().replace('raise RuntimeError("no such part")', "return Net(2)")
    )
    sys.modules.pop("mine")
    report = run(spec, out)
    assert (report.measured, report.failures) == (3, ())


def test_warnings_are_kept_with_the_task(here: Path) -> None:
    (here / "flat.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Flat(nn.Module):\n"
        "    def forward(self, x): return torch.ones(len(x), 4) + 0 * x.mean((1, 2, 3))[:, None]\n"
    )
    run(spec_of(models=["flat:Flat"]), here / "t.parquet")
    assert "ignores them" in results.load(here / "t.parquet").tasks["warnings"].iloc[0][0]


def test_a_table_of_another_schema_is_refused_and_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = here / "t.parquet"
    monkeypatch.setattr(table, "SCHEMA", 0)
    out.write_bytes(table.encode([sweep.measure(task) for task in sweep.plan(["mine:a"], spec_of().measurements)]))
    monkeypatch.setattr(table, "SCHEMA", 1)
    before = out.read_bytes()
    for read in (lambda: run(spec_of(), out), lambda: results.load(out)):
        with pytest.raises(InputError, match=r"has schema 0, and this version of lee reads and writes schema 1\. Move"):
            read()
    assert out.read_bytes() == before


def test_files_that_are_no_tables_are_refused(here: Path) -> None:
    (here / "text.parquet").write_text("not Parquet at all")
    pq.write_table(pa.table({"x": [1]}), here / "other.parquet")
    for name, message in (("text", "can't be read as Parquet"), ("other", "no table of `lee sweep`")):
        with pytest.raises(InputError, match=message):
            run(spec_of(), here / f"{name}.parquet")
    with pytest.raises(InputError, match="can't be written to"):
        run(spec_of(), here / "mine.py" / "t.parquet")


def test_a_missing_data_set_says_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEE_DATA", raising=False)
    with pytest.raises(InputError, match="LEE_DATA is not set"):
        run(spec_of(defaults={"dataset": "cifar10", "n": 2}), here / "t.parquet")
    with pytest.raises(InputError, match=r"no data set 'patchs'\. Did you mean 'patches'"):
        run(spec_of(defaults={"dataset": "patchs"}), here / "t.parquet")


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path[:0] = ["."]
from lee import sweep
from lee.errors import InputError
spec = sweep.load(Path("small.yaml"))
def executor(tasks):
    for i, result in enumerate(sweep.here(tasks)):
        if i == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        yield result
try:
    sweep.run(spec, Path("t.parquet"), executor, progress=False)
except InputError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_full_disk_leaves_nothing_half_written(here: Path) -> None:
    """The kernel refuses to let any file grow beyond a thousand bytes from the third task on."""
    write_spec(here)
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.stderr.startswith("refused: "), ended.stderr
    assert os.strerror(errno.EFBIG) in ended.stderr
    assert "start the same sweep again" in ended.stderr
    folder = here / "t.parquet.tasks"
    assert sorted(p.suffix for p in folder.iterdir()) == ["", ".parquet", ".parquet"]
    report = run(spec_of(), here / "t.parquet")
    assert (report.measured, report.kept) == (4, 2)


def test_two_runs_at_once_are_refused(here: Path) -> None:
    out = here / "t.parquet"

    def nested(wanted: Any) -> Any:
        with pytest.raises(InputError, match="Another `lee sweep` is writing"):
            run(spec_of(), out)
        yield from sweep.here(wanted)

    assert sweep.run(spec_of(), out, nested, progress=False).measured == 6


def test_threads_are_given_back(here: Path) -> None:
    before = torch.get_num_threads()
    seen = [
        torch.get_num_threads() for _ in sweep.here(list(sweep.plan(["mine:a"], spec_of().measurements)), threads=3)
    ]
    assert set(seen) == {before}
    run(spec_of(), here / "t.parquet")
    sweep.run(spec_of(models=["mine:c"]), here / "u.parquet", sweep.executor(threads=3), progress=False)
    assert results.load(here / "u.parquet").tasks["threads"].unique().tolist() == [3]


# the specification


def test_lists_are_products_and_defaults_are_shared() -> None:
    spec = sweep.parse(
        {
            "models": ["zoo/*-s", "zoo/vit-s"],
            "defaults": {"dataset": "cifar10", "seed": 3},
            "measurements": {
                "x": {"weights": ["trained", "initial"], "kernel": ["fourier", "central"], "split": "train"},
                "y": [{"n": 5}, {"kernel": "authors", "align_corners": True, "seed": 4}],
            },
        }
    )
    assert spec.models == ("zoo/resnet-s", "zoo/vit-s", "zoo/mixer-s")
    assert len(spec.measurements) == 6
    assert [m.seed for m in spec.measurements] == [3, 3, 3, 3, 3, 4]
    assert {(m.weights, m.kernel) for m in spec.measurements[:4]} == {
        (w, k) for w in ("trained", "initial") for k in ("fourier", "central")
    }


def test_a_list_of_data_sets_is_as_many_measurements() -> None:
    listed, single = (
        sweep.parse({"models": ["zoo/vit-s"], "measurements": {"x": given}}).measurements
        for given in (
            {"dataset": ["patches", "digits"], "n": 3, "output": ["logits", "probabilities"]},
            [
                {"dataset": name, "n": 3, "output": o}
                for name in ("patches", "digits")
                for o in ("logits", "probabilities")
            ],
        )
    )
    assert listed == single


def test_families_choose_among_models() -> None:
    spec = sweep.parse({**SPEC, "models": ["zoo/*-s", "resnet18"], "families": ["resnet"]})
    assert spec.models == ("zoo/resnet-s", "resnet18")
    assert (sweep.family_of("zoo/mixer-s"), sweep.family_of("vit_tiny_patch16_224")) == ("mixer", "vision_transformer")


WRONG = [
    ({"model": ["zoo/*"]}, r"unknown field 'model'\. Did you mean 'models'"),
    ({"models": []}, "`models:` is missing or empty"),
    ({"measurements": {}}, "`measurements:` is missing"),
    ({"measurements": [{"dataset": "patches"}]}, "must map names"),
    ({"models": ["zoo/vit-q"]}, r"no model 'zoo/vit-q'\. Did you mean 'zoo/vit-"),
    ({"models": ["zoo/wit*"]}, r"no model of the zoo matches 'zoo/wit\*'\. Did you mean"),
    ({"models": ["resnet81"]}, r"no model 'resnet81'\. Did you mean 'resnet"),
    ({"families": ["resnets"]}, r"family 'resnets'\. Did you mean 'resnet'"),
]
WRONG_FIELDS = [
    ({"dataset": None}, "there is no data set None"),
    ("patches", "expected a mapping"),
    ({"kernal": "central"}, r"'x': unknown field 'kernal'\. Did you mean 'kernel'"),
    ({"kernel": "forier"}, r"unknown kernel 'forier'\. Did you mean 'fourier'"),
    ({"output": ["logit"]}, r"unknown output 'logit'\. Did you mean 'logits'"),
    ({"weights": "random"}, "unknown weights 'random'"),
    ({"split": "valid"}, "unknown split 'valid'"),
    ({"generators": ["rotate"]}, r"unknown generator 'rotate'\. Did you mean"),
    ({"discrete": ["eq_x"]}, r"unknown field 'eq_x'\. Did you mean 'eq_"),
    ({"discrete": {"eq_t": {"draw": 1}}}, r"eq_t: unknown field 'draw'\. Did you mean 'draws'"),
    ({"n": 0}, "`n` must be a whole number from 1, not 0"),
    ({"seed": None}, "`seed` must be a whole number from 0, not None"),
    ({"kernel": "authors"}, "needs `align_corners: true`"),
    ({"align_corners": True, "discrete": ["eq_t"]}, "a measurement of their own"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_specification_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": {"dataset": "patches"}}, **change})


@pytest.mark.parametrize(("change", "message"), WRONG_FIELDS)
def test_a_wrong_measurement_is_refused_by_name(change: Any, message: str) -> None:
    entry = {"dataset": "patches", **change} if isinstance(change, dict) else change
    with pytest.raises(InputError, match=message):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": entry}})


def test_a_measurement_without_images_and_a_list_are_refused() -> None:
    with pytest.raises(InputError, match="Give `dataset:`, one of"):
        sweep.parse({"models": ["zoo/*"], "measurements": {"x": {"n": 3}}})
    with pytest.raises(InputError, match="expected a mapping with models, families"):
        sweep.parse(["zoo/*"])


def test_files_that_cant_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        sweep.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("models: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        sweep.load(tmp_path / "bad.yaml")


def test_the_zoos_own_sweep_measures_the_whole_zoo_within_its_budget() -> None:
    spec = sweep.load(results.folder() / "zoo.yaml")
    assert spec.models == models.names()
    found = {(m.name, m.weights, m.split, m.output, m.kernel): m for m in spec.measurements}
    assert len(found) == len(spec.measurements)
    for split in ("train", "test"):
        main = found["main", "trained", split, "probabilities", "fourier"]
        assert (main.n, set(main.discrete)) == (1000, {"consistency", "eq_t", "eq_t_frac", "eq_r"})
        assert main.passes <= 28
    assert {m.kernel for m in spec.measurements} == {"fourier", "central", "authors"}
    assert math.isclose(sum(m.n or 0 for m in spec.measurements), 5500)
