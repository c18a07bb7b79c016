"""The metric keeps torchmetrics' contract: a tensor from compute, collections, synchronisation, casts, copies."""

import copy
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

import lee
from lee.errors import InputError
from lee.measure import streaming
from lee.statistics import Verification

blank = pytest.mark.filterwarnings("ignore:Every pixel of these images:lee.errors.ImageWarning")


class Net(nn.Module):
    """A small smooth network without symmetry, in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 4, 3)
            self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, 3)."""
        scores: Tensor = self.head(self.conv(x).tanh().mean((2, 3)))
        return scores


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 9, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric_of(generator: str = "rotation", model: nn.Module | None = None) -> lee.LocalEquivarianceError:
    return lee.LocalEquivarianceError(Net() if model is None else model, generator, output="logits")


def truth(generator: str, x: Tensor, model: nn.Module | None = None) -> lee.Estimate:
    measured = Net() if model is None else model
    return lee.local_equivariance_error(measured, x, generator, output="logits", progress=False)


def test_compute_is_a_tensor_and_the_estimate_is_that_of_one_pass() -> None:
    metric, x = metric_of(), images(5)
    metric.update(x[:2])
    metric.update(x[2:])
    whole = truth("rotation", x)
    value = metric.compute()
    assert isinstance(value, Tensor)
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert value.item() == pytest.approx(whole.value, rel=1e-12)
    assert metric.estimate[2:7] == whole[2:7]  # all but the numbers and what was checked
    assert metric.estimate.stderr == pytest.approx(whole.stderr, rel=1e-6)
    metric.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics' own remark that update was not called
        with pytest.raises(lee.InputError, match="No images"):
            metric.compute()
        with pytest.raises(lee.InputError, match="No images"):
            _ = metric.estimate


def test_forward_gives_the_batch_and_accumulates() -> None:
    metric, x = metric_of(), images(5)
    assert metric(x[:2]).item() == pytest.approx(truth("rotation", x[:2]).value, rel=1e-12)
    assert metric(x[2:]).item() == pytest.approx(truth("rotation", x[2:]).value, rel=1e-12)
    assert metric.estimate.value == pytest.approx(truth("rotation", x).value, rel=1e-12)
    assert metric.estimate.n == 5


@blank
def test_a_collection_keeps_generators_models_and_small_numbers_apart_after_a_blank_batch() -> None:
    x, other = images(3), Net(1)
    collection = MetricCollection(
        {
            "rotation": metric_of("rotation"),
            "scale": metric_of("scale"),
            "other": metric_of("rotation", other),
        }
    )
    collection.update(torch.zeros(2, 1, 9, 9, dtype=torch.float64))  # every one of them is 0 here
    collection.update(x)
    blank_and_x = torch.cat([torch.zeros(2, 1, 9, 9, dtype=torch.float64), x])
    found = {name: value.item() for name, value in collection.compute().items()}
    assert found == {
        "rotation": pytest.approx(truth("rotation", blank_and_x).value, rel=1e-9),
        "scale": pytest.approx(truth("scale", blank_and_x).value, rel=1e-9),
        "other": pytest.approx(truth("rotation", blank_and_x, other).value, rel=1e-9),
    }
    assert len(set(found.values())) == 3


@blank
def test_a_collection_made_of_clones_is_one_of_metrics_of_their_own() -> None:
    """Lightning's pattern of `metrics.clone(prefix="val_")`."""
    metric, x = metric_of(), images(3)
    collection = MetricCollection({"one": metric, "two": metric.clone()}).clone(prefix="val_")
    collection["two"].generator = lee.SCALE
    collection.update(torch.zeros(2, 1, 9, 9, dtype=torch.float64))
    collection.update(x)
    found = collection.compute()
    assert set(found) == {"val_one", "val_two"}
    assert found["val_one"].item() != pytest.approx(found["val_two"].item(), rel=0.01)


def test_forward_of_a_collection_gives_each_batch() -> None:
    x = images(4)
    collection = MetricCollection({name: metric_of(name) for name in ("rotation", "scale")})
    for part in (x[:1], x[1:]):
        batch = collection(part)
        assert batch["scale"].item() == pytest.approx(truth("scale", part).value, rel=1e-12)
    assert collection.compute()["rotation"].item() == pytest.approx(truth("rotation", x).value, rel=1e-12)


@pytest.mark.parametrize(
    "cast",
    [
        lambda metric: metric.half(),
        lambda metric: metric.double(),
        lambda metric: metric.to(torch.float16),
        lambda metric: metric.to("cpu", torch.bfloat16),
        lambda metric: metric.set_dtype(torch.float32),
        lambda metric: nn.ModuleList([metric]).half()[0],
        lambda metric: nn.ModuleList([metric]).to(torch.bfloat16)[0],
    ],
)
def test_casts_lose_no_precision_and_leave_the_model_alone(cast: object) -> None:
    assert callable(cast)
    model, x = Net(), images(4)
    metric = metric_of("rotation", model)
    metric.update(x[:2])
    metric.compute()
    cast(metric)
    assert model.conv.weight.dtype == torch.float64
    whole = truth("rotation", x[:2])
    assert metric.compute().item() == pytest.approx(whole.value, rel=1e-12)
    metric.update(x[2:])
    assert metric.compute().item() == pytest.approx(truth("rotation", x).value, rel=1e-12)
    metric.reset()
    metric.update(x[:2])
    assert metric.estimate.value == pytest.approx(whole.value, rel=1e-12)


def test_the_sums_follow_to_a_device_but_the_model_does_not() -> None:
    model = Net()
    metric = metric_of("rotation", model)
    metric.update(images(2))
    moved = metric.to("meta")
    assert {moved.total.device.type, moved.count.device.type, moved.device.type} == {"meta"}
    assert model.conv.weight.device.type == "cpu"


def test_a_clone_follows_the_model_that_is_trained() -> None:
    model, x = Net(), images(3)
    clone = metric_of("rotation", model).clone()
    with torch.no_grad():
        model.head.weight.mul_(3)
    clone.update(x)
    assert clone.compute().item() == pytest.approx(truth("rotation", x, model).value, rel=1e-12)


def test_a_model_copied_with_its_metric_is_the_one_that_the_copy_measures() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.error = metric_of("rotation", self.net)

    first, x = Trained(), images(3)
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.net.head.weight.mul_(3)
    second.error.update(x)
    assert second.error.compute().item() == pytest.approx(truth("rotation", x, second.net).value, rel=1e-12)
    assert sum(1 for _ in first.parameters()) == 4  # the model's own, once


def test_a_metric_sent_to_another_process_goes_on() -> None:
    metric, x = metric_of(), images(4)
    metric.update(x[:2])
    mine, its = Pipe()  # which pickles what is sent
    mine.send(metric)
    loaded = its.recv()
    loaded.update(x[2:])
    assert loaded.estimate.value == pytest.approx(truth("rotation", x).value, rel=1e-12)
    assert loaded.estimate.n == 4


def test_a_saved_state_goes_on() -> None:
    metric, x = metric_of(), images(4)
    metric.persistent(True)
    metric.update(x[:2])
    fresh = metric_of()
    fresh.load_state_dict(metric.state_dict())
    fresh.update(x[2:])
    assert fresh.estimate.value == pytest.approx(truth("rotation", x).value, rel=1e-12)


def test_merged_states_are_those_of_all_images() -> None:
    x = images(4)
    one, two = metric_of(), metric_of()
    one.update(x[:1])
    two.update(x[1:])
    one.merge_state(two)
    assert one.estimate.value == pytest.approx(truth("rotation", x).value, rel=1e-12)


def test_the_estimate_says_what_was_checked_and_a_doubt_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    metric, x = metric_of(), images(4)
    metric.update(x[:1])
    good = metric.estimate.verification
    assert good is not None
    assert good.verified
    doubtful = replace(good, verified=False)
    measured = lee.equivariance_gram(Net(), x[:1], generators=["rotation"], output="logits", progress=False)
    monkeypatch.setattr(
        "lee.measure.streaming.equivariance_gram", lambda *_, **__: replace(measured, verification=doubtful)
    )
    metric.update(x[1:2])
    monkeypatch.undo()
    metric.update(x[2:])
    assert metric.estimate.verification == doubtful
    metric.reset()
    metric.update(x)
    assert metric.estimate.verification is not None
    assert metric.estimate.verification.verified


def test_validation_in_inference_mode_and_training_after_it() -> None:
    """Lightning validates in inference mode, resets there, and trains outside of it."""
    metric, x = metric_of(), images(4)
    with torch.inference_mode():
        metric(x[:2].clone())
        metric.reset()
        metric.update(x[:2].clone())
    metric.update(x[2:])
    assert metric.estimate.value == pytest.approx(truth("rotation", x).value, rel=1e-9)


def test_an_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(lee.InputError, match=r"'kernal'\. Did you mean 'kernel'"):
        lee.LocalEquivarianceError(Net(), "rotation", kernal="central")
    assert lee.LocalEquivarianceError(Net(), "rotation", sync_on_compute=False).sync_on_compute is False


WORKER = """
import sys
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from measure.test_streaming import images, metric_of

rank = int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
metric = metric_of()
metric.update(images(5)[:2] if rank == 0 else images(5)[2:])
print(metric.compute().item(), metric.estimate.stderr, metric.estimate.n, int(metric.count))
dist.destroy_process_group()
"""


def test_two_processes_give_the_error_of_all_their_images(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parents[1]), str(tmp_path / "rendezvous")]
    running = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    whole = truth("rotation", images(5))
    for process, own in zip(running, (2, 3), strict=True):
        printed = process.communicate(timeout=300)[0].splitlines()[-1].split()
        assert [float(number) for number in printed] == pytest.approx([whole.value, whole.stderr, 5, own], rel=1e-6)
    assert math.isfinite(whole.stderr)


def test_a_doubt_stays_also_through_forward_and_merging() -> None:
    coarse, fine = (Verification("forward", d, 0.0, "float64", ok) for d, ok in ((0.1, False), (1e-6, True)))
    x = torch.rand(3, 1, 4, 4)
    first, second = (lee.LocalEquivarianceError(nn.Flatten(), "brightness", output="logits") for _ in range(2))
    with pytest.MonkeyPatch.context() as patched:
        for said in (coarse, fine):
            gram = lee.equivariance_gram(nn.Flatten(), x, generators=["brightness"], output="logits", progress=False)
            patched.setattr(
                streaming, "equivariance_gram", lambda *_, gram=gram, said=said, **__: replace(gram, verification=said)
            )
            first(x)
        second.update(x)
    assert first.estimate.verification == coarse
    assert second.estimate.verification == fine
    before = second.estimate.n
    second.merge_state(first)
    assert second.estimate.n == before + first.estimate.n
    assert second.estimate.verification is not None
    assert not second.estimate.verification.verified


def test_metrics_of_models_with_other_weights_are_not_merged() -> None:
    models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)) for _ in range(2)]
    first, other, same = (lee.LocalEquivarianceError(m, "rotation") for m in (*models, copy.deepcopy(models[0])))
    with pytest.raises(InputError, match="weights of their models differ"):
        first.merge_state(other)
    for metric in (first, same):
        metric.update(torch.rand(2, 3, 2, 2))
    first.merge_state(same)
    assert first.estimate.n == 4


def test_metrics_of_other_measurements_are_not_merged() -> None:
    first, second = (
        lee.LocalEquivarianceError(nn.Flatten(), name, output="logits") for name in ("brightness", "contrast")
    )
    with pytest.raises(InputError, match="their generator differ"):
        first.merge_state(second)


@pytest.mark.parametrize(
    "options", [{"output": "logit"}, {"kernel": "cubik"}, {"mode": "backward"}, {"boundary": "zeros"}]
)
def test_options_are_checked_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Unknown"):
        lee.LocalEquivarianceError(nn.Flatten(), "brightness", **options)
