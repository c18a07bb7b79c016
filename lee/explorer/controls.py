"""The explorer's controls and how they are laid out: no behaviour."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from lee import models
from lee.datasets.image_files import ENDINGS
from lee.explorer import drawing, pictures
from lee.explorer.state import KERNELS, MOST_MODELS, REACH, SLIDERS, State
from lee.geometry.generators import NAMED
from lee.geometry.interpolation import BOUNDARIES

MIXTURE = "mixture"
"""What the list of generators shows where no named one is chosen."""

_WORDS = {"style": {"description_width": "110px"}, "layout": widgets.Layout(width="auto", min_width="280px")}


def _slider(name: str, value: float, reach: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=value, min=-reach, max=reach, step=step, description=name, readout_format=".3f", **_WORDS
    )


def entry(state: State) -> str:
    """The entry of the list of generators that stands for the state's mixture."""
    name = state.generator.name
    return name if name in NAMED else MIXTURE


def controls(state: State, folders: Sequence[str] = ()) -> dict[str, Any]:
    """Every control but the sliders of the mixture, by what it sets, at the state's values."""
    last = pictures.MOST_IMAGES
    made: dict[str, Any] = {
        "images": widgets.Combobox(
            value=state.images,
            options=(*pictures.offered(), *folders),
            description="data set",
            ensure_option=False,
            **_WORDS,
        ),
        "index": widgets.IntSlider(state.index, 0, last - 1, description="image", **_WORDS),
        "upload": widgets.FileUpload(
            accept=",".join(ENDINGS), description="image file …", icon="", layout={"width": "auto"}
        ),
        "generator": widgets.Dropdown(options=[*NAMED, MIXTURE], value=entry(state), description="generator", **_WORDS),
        "t": _slider("amount t", state.t, REACH, 0.025),
        "kernel": widgets.Dropdown(options=KERNELS, value=state.kernel, description="kernel", **_WORDS),
        "boundary": widgets.Dropdown(options=BOUNDARIES, value=state.boundary, description="boundary", **_WORDS),
        "n": widgets.IntSlider(state.n, 2, last, description="images for ±", **_WORDS),
        "pretrained": widgets.Checkbox(state.pretrained, description="timm's weights (a download)", indent=False),
        "layers": widgets.Button(description="Layer contributions", layout={"width": "auto"}),
    }
    for which, title in zip(range(MOST_MODELS), ("model", "second model"), strict=True):
        made[f"model{which}"] = widgets.Combobox(
            value=state.models[which] if which < len(state.models) else "",
            options=models.names(),
            description=title,
            placeholder="zoo/… or timm's",
            **_WORDS,
        )
    return made


def mixture(state: State) -> list[widgets.FloatSlider]:
    """The sliders of the mixture."""
    pairs = zip(SLIDERS, state.mixture, strict=True)
    return [_slider(generator.name.replace("_", " "), c, 1.0, 0.05) for generator, c in pairs]


def _group(title: str, children: Sequence[Any]) -> widgets.VBox:
    heading = widgets.HTML(drawing.box(f"<b>{title}</b>"))
    return widgets.VBox([heading, *children], layout={"flex": "1 1 300px", "min_width": "0", "max_width": "480px"})


def _row(children: Sequence[Any]) -> widgets.Box:
    return widgets.Box(children, layout={"display": "flex", "flex_flow": "row wrap", "width": "100%"})


def arranged(
    control: Mapping[str, Any], sliders: Sequence[widgets.FloatSlider], shown: Mapping[str, widgets.HTML]
) -> widgets.VBox:
    """Groups that stand beside each other where there is room, and below each other where there is none."""
    c = control
    groups = [
        _group("Image", [c["images"], c["index"], c["upload"], shown["upload"]]),
        _group("Models", [c["model0"], c["model1"], c["pretrained"]]),
        _group("Transformation", [c["generator"], c["t"], c["kernel"], c["boundary"]]),
    ]
    mixed = _row([widgets.Box([slider], layout={"flex": "1 1 280px", "max_width": "380px"}) for slider in sliders])
    results = [
        _group("Local equivariance error", [c["n"], shown["errors"]]),
        _group("Layers", [c["layers"], shown["layers"]]),
    ]
    titled = widgets.HTML(drawing.box("<b>Mixture of generators</b>"))
    style = widgets.HTML(drawing.STYLE)
    return widgets.VBox(
        [style, _row(groups), titled, mixed, shown["status"], shown["frames"], shown["curves"], _row(results)]
    )
