"""Sweeps: what is finished is never measured again, failures are rows, and wrong surroundings are refused."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sweeps import keys, rows, run, spec_of, workplace, write_spec

import lee
from lee import sweep
from lee.datasets.local_data import choose
from lee.errors import InputError
from lee.sweep import results, table, tasks

ROOT = Path(__file__).resolve().parents[2]

here = pytest.fixture(workplace)


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


SEEDED = "import torch\nfrom mine import Net\n\ndef changing():\n    torch.manual_seed(0)\n    return Net()\n"


def test_a_model_with_new_weights_is_measured_again_alone(here: Path) -> None:
    out, spec = here / "t.parquet", spec_of(models=["mine:a", "seeded:changing"])
    (here / "seeded.py").write_text(SEEDED)
    run(spec, out)
    before = keys(out)
    (here / "seeded.py").write_text(SEEDED.replace("(0)", "(12)"))
    sys.modules.pop("seeded")
    report = run(spec, out)
    assert (report.measured, report.kept) == (3, 3)
    after = keys(out)
    assert Counter(after.values()) == {"mine:a": 3, "seeded:changing": 3}
    assert {before[key] for key in before.keys() & after.keys()} == {"mine:a"}
    sys.modules.pop("seeded")


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


def test_rows_of_another_specification_are_removed_on_demand_alone(here: Path) -> None:
    out = here / "t.parquet"
    run(spec_of(), out)
    before = out.read_bytes()
    for other in (spec_of(models=["mine:b", "mine:c"]), spec_of(measurements={"main": {"generators": "affine"}})):
        with pytest.raises(InputError, match=r"has [23] of 6 tasks that the specification doesn't name.*--prune"):
            run(other, out)
        assert out.read_bytes() == before
    larger = run(spec_of(models=["mine:b", "mine:c"]), out, prune=True)
    assert (larger.measured, larger.kept) == (3, 3)
    assert set(keys(out).values()) == {"mine:b", "mine:c"}


def test_other_labels_are_another_task(here: Path) -> None:
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(list(name.encode())).integers(0, 255, (16, 16, 3), np.uint8)).save(
            here / "pets" / name / f"{name}.png"
        )
    ways = {"main": {"dataset": "imagefolder:pets", "generators": ["rotation"], "n": None}}
    out, spec = here / "t.parquet", spec_of(models=["mine:a"], measurements=ways)
    assert run(spec, out).measured == 1
    assert run(spec, out).measured == 0
    assert rows(out)["label"].tolist() == [0, 1]
    (here / "pets" / "cat" / "cat.png").rename(here / "pets" / "dog" / "cat.png")
    (here / "pets" / "cat").rmdir()  # the same pixels in the same order
    assert run(spec, out).measured == 1
    assert rows(out)["label"].tolist() == [0, 0]


def _photographs(folder: Path, names: Sequence[str], seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{name}.png")


def _renamed(pets: Path, home: Path) -> None:
    (pets / "cat").rename(pets / "bird")  # the same pixels in the same order, under the same indices


def _not_sampled(pets: Path, home: Path) -> None:
    files = sorted(pets.rglob("*.png"))
    left_out = next(i for i in range(len(files)) if i not in choose(len(files), 2, 0).tolist())
    _photographs(files[left_out].parent, [files[left_out].stem], seed=9)


def _home(pets: Path, home: Path) -> None:
    _photographs(home, ["a"], seed=7)


@pytest.mark.parametrize(
    ("change", "again"),
    [(_renamed, {"rows", "none", "far"}), (_not_sampled, {"none", "far"}), (_home, {"far"})],
)
def test_what_a_task_reads_beside_its_own_images_makes_it_stale(
    here: Path, change: Callable[[Path, Path], None], again: set[str]
) -> None:
    pets, home = here / "pets", here / "home"
    _photographs(pets / "cat", "abcd", seed=1)
    _photographs(pets / "dog", "efgh", seed=2)
    _photographs(home, "abcd", seed=3)
    with (here / "mine.py").open("a") as file:
        file.write(
            "\ndef pets():\n    net = Net(classes=3)\n    net.class_names = 'cat', 'dog', 'bird'\n    return net\n"
        )
    shared = {"dataset": "imagefolder:pets", "size": 16}
    far = {"dataset": "imagefolder:home", "split": "test", "images": 4}
    ways = {
        "rows": {**shared, "n": 2, "generators": ["rotation"]},
        "none": {**shared, "n": 2, "generators": "none", "measures": {"accuracy": {"images": 8}}},
        "far": {**shared, "n": 8, "generators": "none", "measures": {"distance": far}},
    }
    out, spec = here / "t.parquet", spec_of(models=["mine:pets"], measurements=ways)
    assert run(spec, out).measured == 3
    before = results.load(out).tasks.set_index("measurement")["images_sha256"]
    assert run(spec, out).measured == 0
    change(pets, home)
    assert run(spec, out).measured == len(again)
    after = results.load(out).tasks.set_index("measurement")["images_sha256"]
    assert set(before.index[before != after.reindex(before.index)]) == again
    assert run(spec, out).measured == 0


def test_a_table_from_before_all_images_were_recorded_is_current(here: Path) -> None:
    out = here / "t.parquet"
    run(spec_of(), out)
    parts = table.read(out).values()
    old = [replace(p, described={k: v for k, v in p.described.items() if k != "images_sha256"}) for p in parts]
    out.write_bytes(table.encode(old))
    before = out.read_bytes()
    assert run(spec_of(), out).measured == 0
    assert out.read_bytes() == before


BROKEN = """
import torch
from torch import nn
from mine import Net

class Unsaid(Net):
    def __repr__(self): raise RuntimeError("no words")

def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

def sparse():
    net = Net()
    net.register_buffer("kept", torch.eye(3).to_sparse())
    return net
"""


def test_what_can_not_be_described_fails_by_itself(here: Path) -> None:
    (here / "broken.py").write_text(BROKEN)
    names = ["broken:Unsaid", "broken:lazy", "broken:sparse"]
    sys.modules.pop("broken", None)
    report = run(
        spec_of(models=[*names, "mine:a"], measurements={"main": {"generators": ["rotation"]}}), here / "t.parquet"
    )
    assert [failure[0] for failure in sorted(report.failures)] == names
    assert report.measured == 4


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
        yield from sweep.here(islice(wanted, 2))
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
    assert said["mine:Undefined"].startswith("InputError: The model holds NaN or infinity on its way")
    assert said == {
        "mine:unbuildable": "InputError: mine:unbuildable can't be built: RuntimeError: no such part",
        "mine:Failing": "ValueError: this network always fails",
        "mine:Undefined": said["mine:Undefined"],
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
    out, spec = here / "t.parquet", spec_of(models=["mine:a", "other:unbuildable"])
    (here / "other.py").write_text("from mine import unbuildable\n")
    assert len(run(spec, out).failures) == 3
    (here / "other.py").write_text("from mine import Net\n\ndef unbuildable(): return Net(2)\n")
    sys.modules.pop("other")
    report = run(spec, out)
    assert (report.measured, report.failures) == (3, ())
    sys.modules.pop("other")


def test_what_can_not_be_loaded_on_this_machine_stays_in_the_table(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, before = here / "t.parquet", lee.models.load
    ways: dict[str, dict[str, Any]] = {
        "end": {"generators": ["rotation"], "measures": {"eq_r": {"max_angle": 90}}},
        "start": {"weights": "initial", "generators": "none", "measures": ["consistency"]},
    }
    spec = spec_of(models=["zoo/resnet-s"], measurements=ways)
    assert run(spec, out).measured == 2
    content = out.read_bytes()

    def load(name: str, *, trained: bool = True, **options: Any) -> lee.models.Normalized:
        if trained:
            raise InputError("The weights are on another machine.")
        return before(name, trained=trained, **options)

    monkeypatch.setattr(lee.models, "load", load)
    report = run(spec, out)
    assert (report.measured, report.kept, report.failures) == (0, 2, ())
    assert report.unloaded == ("zoo/resnet-s, trained",)
    assert out.read_bytes() == content
    for changed in ({"generators": ["scale"]}, {"n": 2}, {"measures": {"eq_r": {"max_angle": 91}}}):
        other = spec_of(models=["zoo/resnet-s"], measurements={"end": {**ways["end"], **changed}})
        report = run(other, here / "t.parquet", prune=True)
        assert "another machine" in report.failures[0][2], "what was measured differently is not what is asked for"
        out.write_bytes(content)


def test_a_network_of_ours_stays_where_its_package_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = here / "t.parquet"
    spec = spec_of(
        models=["lee.training.denoising:EncoderDecoder"],
        measurements={"main": {"generators": ["rotation"], "output": "logits"}},
    )
    assert run(spec, out).measured == 1
    content = out.read_bytes()

    def load(name: str, **_: Any) -> lee.models.Normalized:
        raise InputError("A package is missing.")

    monkeypatch.setattr(lee.models, "load", load)
    tasks.forget()
    assert run(spec, out).unloaded == ("lee.training.denoising:EncoderDecoder, trained",)
    assert out.read_bytes() == content


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
    whole = here / "whole.parquet"
    run(spec_of(models=["mine:a"], measurements={"main": {"generators": ["rotation"]}}), whole)
    (here / "cut.parquet").write_bytes(cut := whole.read_bytes()[: whole.stat().st_size // 3])
    todo = r"can't be read as Parquet: it is no table or was cut short .* left as it is: .* move it away"
    for name, message in (("text", todo), ("cut", todo), ("other", "no table of `lee sweep`")):
        with pytest.raises(InputError, match=message):
            run(spec_of(), here / f"{name}.parquet")
    assert (here / "cut.parquet").read_bytes() == cut
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
import lee
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


def with_a_small_disk(disk: Path, size: str, work: Callable[[], None]) -> bool:
    """Do something in a copy of this process that sees a small disk at a place; False if the system doesn't allow that."""

    def child() -> None:
        library, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
        if library.unshare(0x10020000):  # CLONE_NEWUSER, CLONE_NEWNS
            os._exit(77)
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(content)
        if library.mount(b"none", os.fsencode(disk), b"tmpfs", 0, f"size={size}".encode()):
            os._exit(77)
        torch.set_num_threads(1)  # threads don't survive the copying
        work()
        os._exit(0)

    disk.mkdir()
    process = get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, 77)
    return process.exitcode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="makes its disk with Linux's namespaces")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_room_was_made_on_a_full_disk_only_the_rest_is_measured(here: Path) -> None:
    disk, saved = here / "disk", here / "saved"

    def fill() -> None:
        with pytest.raises(InputError) as refused:
            run(spec_of(), disk / "t.parquet")
        shutil.copytree(disk, saved)  # the disk ends with the process
        (saved / "refusal").write_text(str(refused.value))

    if not with_a_small_disk(disk, "40k", fill):
        pytest.skip("this system lets nobody mount a small disk")
    assert "can't be written: No space left on device. Nothing that was finished" in (saved / "refusal").read_text()
    left = {path.name: path.read_bytes() for path in (saved / "t.parquet.tasks").glob("*.parquet")}
    assert 1 <= len(left) < 6
    assert not list(saved.rglob("*.tmp"))
    report = run(spec_of(), saved / "t.parquet")
    assert (report.measured, report.kept) == (6 - len(left), len(left))
    run(spec_of(), here / "whole.parquet")
    assert rows(saved / "t.parquet").equals(rows(here / "whole.parquet"))


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
