"""What only some images make a model do: change its state, draw random numbers, decide for the others of their batch."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import lee
from lee import metrics


class Some(nn.Module):
    """What it does to the second half of its images, which are dark, it does to no other."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.net = kind, nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(196, 5))
        self.register_buffer("prototype", torch.zeros(5, dtype=torch.float64))
        self.memory = SimpleNamespace(prototype=torch.zeros(5, dtype=torch.float64)) if kind == "object" else Memory()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        found, dark = self.net(x), x.mean((1, 2, 3)) < 0.3
        if self.kind == "draws":
            return self.net(
                torch.stack([z + 0.3 * torch.randn_like(z) if d else z for z, d in zip(x, dark, strict=True)])
            )
        if self.kind == "decides":
            return found + 10 * found.flip(1) if bool(dark.any()) else found
        holder = self if self.kind == "buffer" else self.memory
        if bool(dark.any()):
            holder.prototype = holder.prototype + found[dark].detach().mean(0)
        return found * (1 + 10 * holder.prototype)


class Memory:
    """A plain object with a tensor."""

    def __init__(self) -> None:
        self.prototype = torch.zeros(5, dtype=torch.float64)


def some(kind: str) -> tuple[Some, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(8, 3, 16, 16, dtype=torch.float64)
    x[4] *= 0.3
    return Some(kind).eval(), x


@pytest.mark.parametrize("kind", ["buffer", "object", "own"])
def test_a_state_that_only_some_images_change_is_put_back_before_each_pass(kind: str) -> None:
    model, x = some(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lee.StateWarning)
        alone = torch.cat([lee.lie_derivative(model, x[i : i + 1], "rotation", output="logits") for i in range(8)])
    with pytest.warns(lee.StateWarning):
        found = lee.lie_derivative(model, x, "rotation", output="logits", chunk=1)
    torch.testing.assert_close(found, alone)
    with pytest.warns(lee.StateWarning):
        moved = metrics.sampled_invariance(model, x, "rotation", radius=1e-3, output="logits", chunk=1)
    assert moved.value == pytest.approx(float(alone.square().mean()) * 1e-6 / 3, rel=0.2)  # of a few amounts
    assert not (model.prototype if kind == "buffer" else model.memory.prototype).any()


def test_random_numbers_that_only_some_images_draw_are_held_still() -> None:
    model, x = some("draws")
    with pytest.warns(lee.RandomFunctionWarning):
        found = lee.lie_derivative(model, x, "rotation", output="logits")
    torch.testing.assert_close(found[:4], lee.lie_derivative(model.net, x[:4], "rotation", output="logits"))
    truth = lee.local_equivariance_error(model.net, x, "rotation", output="logits", progress=False).value
    with pytest.warns(lee.RandomFunctionWarning):
        moved = metrics.sampled_invariance(model, x, "rotation", radius=1e-3, output="logits")
    assert moved.value == pytest.approx(truth * 1e-6 / 3, rel=0.2)  # one image is another one, with noise


# Of later chunks only the first image is looked at alone, so one that decides and comes first there is not noticed.
NAMED = [(chunk, dark) for chunk in (2, 3, 8) for dark in range(8) if dark < chunk or dark % chunk]


@pytest.mark.parametrize(("chunk", "dark"), NAMED)
def test_one_image_that_decides_for_its_batch_is_named(chunk: int, dark: int) -> None:
    model, x = some("decides")
    x[[4, dark]] = x[[dark, 4]]
    with pytest.warns(lee.BatchInteractionWarning):
        lee.lie_derivative(model, x, "rotation", output="logits", chunk=chunk)


def test_an_optimizer_that_a_model_holds_is_put_back() -> None:
    class Adapting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3, 2), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(196, 5)
            ).double()
            self.optimizer = torch.optim.Adam(self.net[1].parameters(), lr=0.1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                p = self.net(x).softmax(-1)
                self.optimizer.zero_grad()
                (-(p * p.log()).sum(-1).mean()).backward()
                self.optimizer.step()
            return self.net(x)

    torch.manual_seed(0)
    model, x = Adapting().eval(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    fresh = copy.deepcopy(model)
    with pytest.warns(lee.LeeWarning):
        found = lee.lie_derivative(model, x, "rotation", output="logits", chunk=1)
    assert not model.optimizer.state
    for i in range(2):
        a, b = (copy.deepcopy(fresh)(lee.warp(x[i : i + 1], "rotation", t)).detach() for t in (1e-5, -1e-5))
        torch.testing.assert_close(found[i : i + 1], (a - b) / 2e-5, rtol=1e-4, atol=1e-6)


def test_a_warning_names_the_line_that_measures() -> None:
    model, x = some("decides")
    with pytest.warns(lee.BatchInteractionWarning) as caught:
        metrics.sampled_invariance(model, x, "rotation", radius=1e-3, output="logits")
    assert {w.filename for w in caught} == {__file__}


def test_another_way_is_found_for_images_of_the_first_chunk_too() -> None:
    model, x = some("decides")

    def item(z: Tensor) -> Tensor:
        scales = [v if v > 0.3 else v.item() for v in z.mean((1, 2, 3))]
        return torch.cat([model.net(u[None] / s) for u, s in zip(z, scales, strict=True)])

    with pytest.warns(lee.LeavesTorchWarning):
        found = lee.lie_derivative(item, x, "rotation", output="logits")
    with pytest.warns(lee.LeavesTorchWarning):
        torch.testing.assert_close(found, lee.lie_derivative(item, x, "rotation", output="logits", chunk=1))


def test_later_chunks_are_looked_at_only_where_the_model_asks_for_values() -> None:
    passes: dict[str, int] = {}
    for kind in ("decides", "none"):
        model, x = some(kind)
        x[4] /= 0.3
        model = model if kind == "decides" else nn.Sequential(model.net)
        model.register_forward_hook(lambda *_, kind=kind: passes.update({kind: passes.get(kind, 0) + 1}))
        lee.lie_derivative(model.eval(), x, "rotation", output="logits", chunk=2)
    assert passes["decides"] == passes["none"] + 3
