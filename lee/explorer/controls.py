"""The explorer's controls and how they are laid out: no behaviour."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from lee import models
from lee.datasets.image_files import ENDINGS
from lee.explorer import drawing, pictures
from lee.explorer.state import KERNELS, MOST_MODELS, PRESETS, REACH, SLIDERS, State
from lee.geometry.generators import NAMED
from lee.geometry.interpolation import BOUNDARIES

MIXTURE = "mixture"
"""What the list of generators shows where no named one is chosen."""

OTHER = ""
"""What a list shows where the field below it says something else."""

_WORDS = {"style": {"description_width": "92px"}, "layout": widgets.Layout(width="auto", min_width="0")}
_FAMILIES = {
    "resnet": "ResNets", "vit": "vision transformers", "mixer": "Mixers", "convnext": "ConvNeXts", "resmlp": "ResMLPs",
    "poolformer": "PoolFormers", "efficientnet": "EfficientNets of ImageNet",
}  # fmt: skip
_SETS = {"photos": "photographs", "patches": "photographs", "histology": "medical images", "retina": "medical images"}


def grouped(names: Sequence[str], family: Callable[[str], str]) -> list[tuple[str, str]]:
    """Entries of a list, those of a family beside each other, and one for what the field below says."""
    pairs = [(family(name), name) for name in names]
    order = list(dict.fromkeys(group for group, _ in pairs))
    pairs.sort(key=lambda pair: order.index(pair[0]))
    return [("what the field below says", OTHER), *((f"{group}: {name}", name) for group, name in pairs)]


def _model_family(name: str) -> str:
    family = str(models.card(name)["family"])
    return _FAMILIES.get(family, family)


def _set_family(name: str) -> str:
    return _SETS.get(
        name,
        "textures" if name == "textures" else "folders" if ":" in name else "CIFAR" if "cifar" in name else "digits",
    )


def _list(title: str, options: Sequence[tuple[str, str]], value: str) -> widgets.Dropdown:
    known = value in (name for _, name in options)
    return widgets.Dropdown(options=options, value=value if known else OTHER, description=title, **_WORDS)


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
    sets = grouped((*pictures.offered(), *folders), _set_family)
    made: dict[str, Any] = {
        "preset": widgets.Dropdown(
            options=[("choose …", OTHER), *PRESETS.items()], value=OTHER, description="show", **_WORDS
        ),
        "list_images": _list("data set", sets, state.images),
        "images": widgets.Combobox(
            value=state.images,
            options=(*pictures.offered(), *folders),
            description="or its name",
            ensure_option=False,
            **_WORDS,
        ),
        "index": widgets.IntSlider(state.index, 0, last - 1, description="image", **_WORDS),
        "upload": widgets.FileUpload(
            accept=",".join(ENDINGS),
            description="image file …",
            tooltip="PNG, JPEG, …",
            icon="",
            layout={"width": "auto"},
        ),
        "generator": widgets.Dropdown(options=[*NAMED, MIXTURE], value=entry(state), description="generator", **_WORDS),
        "t": _slider("amount t", state.t, REACH, 0.025),
        "kernel": widgets.Dropdown(options=KERNELS, value=state.kernel, description="kernel", **_WORDS),
        "boundary": widgets.Dropdown(options=BOUNDARIES, value=state.boundary, description="boundary", **_WORDS),
        "n": widgets.IntSlider(state.n, 2, last, description="images for ±", **_WORDS),
        "pretrained": widgets.Checkbox(state.pretrained, description="timm's weights (a download)", indent=False),
        "layers": widgets.Button(description="Layer contributions", layout={"width": "auto"}),
    }
    known = grouped(models.names(), _model_family)
    for which, title in zip(range(MOST_MODELS), ("model", "second model"), strict=True):
        chosen = state.models[which] if which < len(state.models) else ""
        made[f"list_model{which}"] = _list(title, known, chosen)
        made[f"model{which}"] = widgets.Combobox(
            value=chosen,
            options=models.names(),
            description="or its name",
            placeholder="zoo/… or timm's" if which == 0 else "none",
            **_WORDS,
        )
    return made


def lists(control: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Each list, and what it shows of what the field below it says."""
    pairs = [(control[f"list_{name}"], control[name].value.strip()) for name in ("images", "model0", "model1")]
    return [(one, value if value in (known for _, known in one.options) else OTHER) for one, value in pairs]


def mixture(state: State) -> list[widgets.FloatSlider]:
    """The sliders of the mixture."""
    pairs = zip(SLIDERS, state.mixture, strict=True)
    return [_slider(generator.name.replace("_", " "), c, 1.0, 0.05) for generator, c in pairs]


def _group(title: str, children: Sequence[Any]) -> widgets.VBox:
    return widgets.VBox(
        [widgets.HTML(drawing.box(f"<b>{title}</b>")), *children], layout={"width": "auto", "min_width": "0"}
    )


def _folded(title: str, children: Sequence[Any]) -> widgets.Accordion:
    return widgets.Accordion([widgets.VBox(children)], titles=(title,), selected_index=None)


def arranged(
    control: Mapping[str, Any], sliders: Sequence[widgets.FloatSlider], shown: Mapping[str, widgets.HTML]
) -> widgets.VBox:
    """Controls on the left and what they show beside them; below each other where there is no room for that."""
    c = control
    steering = [
        c["preset"],
        _group("Image", [c["list_images"], c["images"], c["index"], c["upload"], shown["formats"], shown["upload"]]),
        _group("Models", [c["list_model0"], c["model0"], c["list_model1"], c["model1"], shown["models"]]),
        _group("Motion", [c["generator"], c["t"]]),
        _folded("Mixture of motions", list(sliders)),
        _folded("How it is computed", [c["kernel"], c["boundary"], c["n"], c["pretrained"]]),
    ]
    results = [
        shown["status"], shown["frames"], shown["curves"], shown["errors"], shown["code"], c["layers"], shown["layers"],
    ]  # fmt: skip
    left = widgets.VBox(steering, layout={"flex": "1 1 300px", "max_width": "360px", "min_width": "0"})
    right = widgets.VBox(results, layout={"flex": "1 1 480px", "min_width": "0", "padding": "0 0 0 12px"})
    both = widgets.Box([left, right], layout={"display": "flex", "flex_flow": "row wrap", "width": "100%"})
    return widgets.VBox([widgets.HTML(drawing.STYLE + drawing.HEAD), both])
