"""Sweeps on a Dask cluster: real processes on this machine, some of which are killed at random moments."""

import ast
import os
import random
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sweeps import rows, run, spec_of, workplace

from lee import sweep
from lee.errors import InputError
from lee.sweep import cluster as cluster_module
from lee.sweep import results

pytest.importorskip("distributed")
from dask_processes import LONG, Cluster, Forked, until

#: How many of the twenty runs are made: `LEE_ALL_SEEDS=1` for all of them.
SEEDS = range(20 if os.environ.get("LEE_ALL_SEEDS") else 1)
MODELS = ["mine:slow", "mine:slower", "mine:a", "mine:b"]
TASKS = 12

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks while threads run

here = pytest.fixture(workplace)


@pytest.fixture
def cluster(here: Path) -> Iterator[Cluster]:
    made = Cluster(here)
    yield made
    made.close()


def client(spec: sweep.SweepSpec, out: Path, address: str) -> None:
    """A sweep on the cluster, in a process of its own; a refusal is left in a file."""
    try:
        sweep.run(spec, out, sweep.executor(scheduler=address, threads=1), progress=False)
    except InputError as error:
        out.with_suffix(".refusal").write_text(str(error))


def finished(folder: Path) -> dict[str, bytes]:
    """The files of finished tasks."""
    return {path.name: path.read_bytes() for path in (folder / "t.parquet.tasks").glob("*.parquet")}


def seconds(path: Path) -> dict[str, float]:
    """How long each task took: what tells a measurement from its repetition."""
    return {part.key: part.described["seconds"] for part in results.load(path).parts}


def kept_to_the_end(folder: Path, kept: dict[str, bytes]) -> None:
    """The table has the very rows that lay there when a client was killed."""
    stored = seconds(folder / "t.parquet")
    for name, content in kept.items():
        (folder / "one.parquet").write_bytes(content)
        assert seconds(folder / "one.parquet").items() <= stored.items(), f"{name} was measured again"


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments_a_sweep_ends_with_the_same_table(
    here: Path, cluster: Cluster, seed: int, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(models=MODELS)
    run(spec, here / "whole.parquet")
    draw, kept, kills = random.Random(seed), dict[str, bytes](), {"client": 0, "worker": 0}
    process = Forked(client, spec, here / "t.parquet", cluster.address)
    while process.exitcode is None:
        process.process.join(draw.uniform(0.1, 1.0) * 1.3 ** sum(kills.values()))  # so that slow machines end too
        if process.exitcode is not None and sum(kills.values()):
            break
        victim = draw.choice(sorted(kills))
        kills[victim] += 1
        if victim == "worker":
            cluster.replace(draw.randrange(2))
            continue
        process.kill()
        left = finished(here)
        assert (here / "t.parquet").exists() or kept.items() <= left.items(), (
            "finished tasks were lost or measured again"
        )
        kept |= left
        process = Forked(client, spec, here / "t.parquet", cluster.address)
    assert process.exitcode == 0
    request.node.user_properties.append(("kills", kills))
    assert sum(kills.values()) > 0
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))
    kept_to_the_end(here, kept)
    assert not (here / "t.parquet.tasks").exists()


def test_a_killed_worker_loses_nothing(here: Path, cluster: Cluster) -> None:
    spec = spec_of(models=MODELS)
    run(spec, here / "whole.parquet")
    process = Forked(client, spec, here / "t.parquet", cluster.address)
    until(lambda: len(finished(here)) >= 2, process)
    cluster.workers[0].kill()  # and nobody takes its place
    process.process.join(LONG)
    assert process.exitcode == 0
    pd.testing.assert_frame_equal(rows(here / "t.parquet"), rows(here / "whole.parquet"), check_exact=True)


def test_a_killed_scheduler_keeps_what_was_finished(here: Path, cluster: Cluster) -> None:
    spec = spec_of(models=MODELS)
    run(spec, here / "whole.parquet")
    process = Forked(client, spec, here / "t.parquet", cluster.address)
    until(lambda: len(finished(here)) >= 2, process)
    cluster.scheduler.kill()
    process.process.join(LONG)
    assert "The scheduler is gone. What was finished is kept" in (here / "t.refusal").read_text()
    kept = finished(here)
    assert 2 <= len(kept) < TASKS
    report = run(spec, here / "t.parquet")
    assert (report.measured, report.kept) == (TASKS - len(kept), len(kept))
    assert rows(here / "t.parquet").equals(rows(here / "whole.parquet"))
    kept_to_the_end(here, kept)


def test_a_model_that_kills_every_worker_is_a_row_with_an_error(here: Path) -> None:
    spec = spec_of(models=["mine:Deadly", "mine:a"], measurements={"m": {"generators": ["rotation"]}})
    made = Cluster(here, workers=5, failures=1)  # two die, two more with fewer images per pass, one is left
    try:
        process = Forked(client, spec, here / "t.parquet", made.address)
        process.process.join(LONG)
        (error,) = results.load(here / "t.parquet").errors["error"]
        assert error == "Every worker process that measured this died."
        assert sum(worker.exitcode is None for worker in made.workers) == 1
    finally:
        made.close()


def test_the_documented_slurm_cluster_asks_for_a_gpu_and_memory() -> None:
    """The arguments of the example in the documentation, as the script that a job would be."""
    from dask_jobqueue.slurm import SLURMJob

    example = textwrap.dedent(str(cluster_module.__doc__).split(".. code-block:: python\n")[1].split("\n`print")[0])
    calls = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
    (made,) = (call for call in calls if getattr(call.func, "id", "") == "SLURMCluster")
    given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in made.keywords}
    script = SLURMJob(scheduler="tcp://10.0.0.1:8786", name="worker-0", **given).job_script()
    for line in ("#SBATCH --gpus=1", "#SBATCH --mem=15G", "#SBATCH -t 02:00:00", "#SBATCH --cpus-per-task=1"):
        assert line in script.splitlines()
    assert "distributed.cli.dask_worker tcp://10.0.0.1:8786" in script
    assert "--nthreads 1" in script


def test_other_weights_on_a_worker_are_refused(here: Path) -> None:
    task = next(sweep.plan(["mine:a"], spec_of().measurements))
    assert sweep.measure(task).described["error"] is None
    for change, message in (({"weights_sha256": "0"}, "weights of mine:a"), ({"data_sha256": "0"}, "patches isn't")):
        assert message in sweep.measure(replace(task, **change)).described["error"]


def test_no_scheduler_and_two_kinds_of_workers_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lee.sweep.cluster.PATIENCE", 1)
    with pytest.raises(InputError, match=r"There is no scheduler at 'tcp://127\.0\.0\.1:9'"):
        sweep.run(spec_of(), here / "t.parquet", sweep.executor(scheduler="tcp://127.0.0.1:9"), progress=False)
    with pytest.raises(InputError, match="Give either a number of workers"):
        sweep.executor(2, scheduler="tcp://127.0.0.1:9")
