"""Maps over photographs: colours, scale, patches, files."""

import numpy as np
import pytest
import torch
from PIL import Image

from lee import charts
from lee.errors import InputError

WORDS = {"caption": "Where the error is.", "alt": "Two photographs with blue and vermilion patches."}


def shares() -> torch.Tensor:
    values = torch.zeros(2, 8, 8)
    values[0, :4, :4], values[1, 4:, 4:] = 1 / 16, -1 / 16
    return values


def test_colours_say_the_sign_and_grey_says_nothing() -> None:
    photographs = torch.rand(2, 3, 8, 8)
    drawn, limit = charts.overlaid(photographs, shares(), patch=4)
    assert limit == pytest.approx(1)
    ends = (charts.DIVERGING[0], charts.DIVERGING[-1])
    blue, vermilion = (np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for c in ends)
    assert np.allclose(drawn[0][:, 1, 1], vermilion)
    assert np.allclose(drawn[1][:, 6, 6], blue)
    still = drawn[0][:, 6, 6]
    assert np.ptp(still) < 1e-12
    assert still[0] == pytest.approx(0.55 + 0.4 * float(photographs[0, :, 6, 6].mean()))
    weaker, _ = charts.overlaid(photographs, shares() * torch.tensor([1.0, 4.0])[:, None, None], patch=4)
    assert np.abs(weaker[0][:, 1, 1] - vermilion).max() > 0.05


def test_the_figure_has_its_scale_and_the_sheet_its_rows() -> None:
    photographs = torch.rand(2, 1, 8, 8)
    shown = charts.maps(photographs, shares(), patch=2, titles=["one", "two"], **WORDS)  # type: ignore[arg-type]
    assert shown.html.count("<img") == 2
    assert "lee-scale-bar" in shown.html
    assert shown.html.index("lee-scale-bar") < shown.html.index("<figcaption>")
    assert "+0.25" in shown.html
    sheet = charts.map_sheet(photographs, shares(), patch=4, title="A title")
    assert isinstance(sheet, Image.Image)
    colours = {tuple(c) for c in np.asarray(sheet).reshape(-1, 3)[::3].tolist()}
    assert (0, 0x72, 0xB2) in colours
    assert (0xD5, 0x5E, 0) in colours
    assert sheet.height > 2 * 224
    missing = shares()
    missing[1] = float("nan")  # an image without error
    drawn, _ = charts.overlaid(photographs, missing, patch=4)
    assert np.ptp(drawn[1], axis=0).max() < 1e-12


def test_maps_that_don_t_fit_are_refused() -> None:
    with pytest.raises(InputError, match="map of its size"):
        charts.overlaid(torch.rand(2, 3, 8, 8), shares()[:1])
    with pytest.raises(InputError, match="Patches of 3 × 3"):
        charts.overlaid(torch.rand(2, 3, 8, 8), shares(), patch=3)
