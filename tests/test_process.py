"""Several threads, and copies of the process, while something is measured."""

import faulthandler
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lee
from lee import metrics
from lee.autodiff import by_dual_numbers
from lee.process.alone import alone, put_back

ROOT = Path(__file__).resolve().parents[1]
X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.patches, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).mT).mean(1))


def switches() -> list[bool]:
    cuda = torch.backends.cuda
    return [
        torch.backends.mha.get_fastpath_enabled(), cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(), torch.is_grad_enabled(),
    ]  # fmt: skip


def at_once(*tasks: Callable[[], Any], times: int = 6) -> list[list[Any]]:
    """What each task returns, all running at the same time again and again."""
    found: list[list[Any]] = [[] for _ in tasks]
    failures: list[BaseException] = []
    start = threading.Barrier(len(tasks))

    def run(place: int) -> None:
        start.wait()
        try:
            for _ in range(times):
                found[place].append(tasks[place]())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


def error_of(model: nn.Module) -> float:
    return lee.local_equivariance_error(model, X, "rotation", progress=False).value


def test_two_threads_measure_unrelated_models() -> None:
    models, before = [Attention(0), Attention(1)], switches()
    wanted = [error_of(model) for model in models]
    found = at_once(*(lambda model=model: error_of(model) for model in models))
    assert found == [[value] * 6 for value in wanted]
    assert switches() == before


def test_two_threads_measure_models_with_one_backbone() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
    models = [nn.Sequential(backbone, nn.Linear(36, 5)).train() for _ in range(2)]
    wanted, weights = [error_of(model) for model in models], {k: v.clone() for k, v in backbone.state_dict().items()}
    found = at_once(*(lambda model=model: error_of(model) for model in models))
    assert found == [[value] * 6 for value in wanted]
    assert all(module.training for model in models for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in backbone.state_dict().items())


def test_dual_numbers_layers_metrics_and_penalties_at_once() -> None:
    from lee.training import EquivariancePenalty

    model, other, before = Attention(0).eval(), Attention(1), switches()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    penalty, tangent = EquivariancePenalty(["rotation"], "exact"), torch.ones_like(X)[None]
    tasks: list[Callable[[], Any]] = [
        lambda: float(by_dual_numbers(lambda z: torch.special.i0e(model(z)), X, tangent)[1].norm()),  # type: ignore[union-attr]
        lambda: lee.layerwise(other, X, "rotation").total.value,
        lambda: metrics.eq_t(model, X, draws=1).value,
        lambda: float(penalty(plain, X).detach()),
    ]
    wanted = [task() for task in tasks]
    assert at_once(*tasks, times=3) == [[pytest.approx(value, rel=1e-5)] * 3 for value in wanted]
    assert switches() == before


def test_random_numbers_of_a_factory_and_of_a_measurement() -> None:
    models, before = [Attention(0), Attention(1)], torch.get_rng_state()

    def build() -> float:
        return float(lee.models.load("test_vit", seed=3).net.head.weight.detach().sum())

    wanted = build()
    found = at_once(build, lambda: error_of(models[0]), times=4)
    assert found[0] == [wanted] * 4
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_put_back_is_put_back_in_turn() -> None:
    said: list[str] = []
    with alone(), put_back(lambda: said.append("outer")), alone(), put_back(lambda: said.append("inner")):
        pass
    assert said == ["inner", "outer"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it is what is tested
def test_a_copy_forked_while_another_thread_measures_can_measure() -> None:
    inside, go_on = threading.Event(), threading.Event()
    plain, held = Attention(0), Attention(1)
    wanted = [error_of(plain), error_of(held)]

    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = held

        def forward(self, x: Tensor) -> Tensor:
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait()
            return self.net(x)

    waiting, before = Waiting().train(), switches()
    thread = threading.Thread(target=lambda: by_dual_numbers(waiting, X, torch.ones_like(X)[None]))
    measuring = threading.Thread(target=lambda: error_of(waiting))
    measuring.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        same = [error_of(plain), error_of(held)] == [pytest.approx(value, rel=1e-5) for value in wanted]
        os._exit(0 if same and waiting.training and switches() == before else 3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    go_on.set()
    measuring.join()
    assert status == 0
    inside.clear()
    go_on.clear()
    thread.start()  # in the middle of dual numbers, which are the process's
    inside.wait()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        found = by_dual_numbers(plain, X, torch.ones_like(X)[None])[1]
        os._exit(0 if found is not None else 3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    go_on.set()
    thread.join()
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_copy_of_a_process_with_several_threads_does_not_wait_for_them() -> None:
    script = """
import faulthandler, os, torch, lee
from torch import nn
torch.set_num_threads(2)
model, x = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 62 * 62, 5)), torch.rand(8, 3, 64, 64)
measure = lambda: lee.local_equivariance_error(model, x, "rotation", progress=False)
measure()
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    measure()
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=200).returncode == 0
