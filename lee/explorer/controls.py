"""The explorer's controls and how they are laid out: no behaviour."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from lee import models
from lee.datasets.image_files import ENDINGS
from lee.explorer import drawing, pictures
from lee.explorer.state import KERNELS, MOST_MODELS, PATCHES, PRESETS, REACH, REACHES, SLIDERS, State
from lee.explorer.tabs import NOTES, TABS
from lee.geometry.generators import NAMED
from lee.geometry.interpolation import BOUNDARIES

MIXTURE = "mixture"
"""What the list of generators shows where no named one is chosen."""

OTHER = "other"
"""What a list shows where the field below it says something else."""

NAMES = ("images", *(f"model{which}" for which in range(MOST_MODELS)))
"""What is chosen from a list, or by a name in the field below it."""

THUMBS = 12
"""Small pictures that are shown at once."""

_WORDS = {"style": {"description_width": "92px"}, "layout": widgets.Layout(width="auto", min_width="0")}
_FAMILIES = {
    "resnet": "ResNets", "vit": "vision transformers", "mixer": "Mixers", "convnext": "ConvNeXts", "resmlp": "ResMLPs",
    "poolformer": "PoolFormers", "efficientnet": "EfficientNets of ImageNet",
}  # fmt: skip
_SETS = {"photos": "photographs", "patches": "photographs", "textures": "textures"}
_SETS |= dict.fromkeys(("histology", "retina"), "medical images")


def grouped(names: Sequence[str], family: Callable[[str], str]) -> list[tuple[str, str]]:
    """Entries of a list, those of a family beside each other, and one for what the field below says."""
    pairs = [(family(name), name) for name in names]
    order = list(dict.fromkeys(group for group, _ in pairs))
    pairs.sort(key=lambda pair: order.index(pair[0]))
    return [*((f"{group}: {name}", name) for group, name in pairs), ("another, by its name …", OTHER)]


def _model_family(name: str) -> str:
    family = str(models.card(name)["family"])
    return _FAMILIES.get(family, family)


def _set_family(name: str) -> str:
    return _SETS.get(name, "folders" if ":" in name else "CIFAR" if "cifar" in name else "digits")


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
        "preset": widgets.Dropdown(
            options=[("choose …", ""), *PRESETS.items()], value="", description="begin with", **_WORDS
        ),
        "index": widgets.IntSlider(state.index, 0, last - 1, description="image", **_WORDS),
        "thumbs": widgets.ToggleButtons(options=[("0", 0)]),
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
        "patch": widgets.Dropdown(
            options=[(_patch(side), side) for side in PATCHES], value=state.patch, description="shares of", **_WORDS
        ),
        "reach": widgets.Dropdown(
            options=[(f"from −{r:g} to {r:g}", r) for r in REACHES], value=state.reach, description="amounts", **_WORDS
        ),
    }
    zoo = grouped(models.names(), _model_family)
    sets = grouped((*pictures.offered(), *folders), _set_family)
    titles = ("data set", "model", "second model")
    value = {"images": state.images, **{f"model{which}": chosen for which, chosen in enumerate(state.models)}}
    for name, title, options in zip(NAMES, titles, (sets, zoo, [("none", ""), *zoo]), strict=True):
        made[f"list_{name}"] = widgets.Dropdown(options=options, value=OTHER, description=title, **_WORDS)
        made[name] = widgets.Combobox(
            value=value.get(name, ""),
            options=[known for _, known in options if known not in ("", OTHER)],
            description="its name",
            placeholder="of lee, or imagefolder:…" if name == "images" else "zoo/… or timm's",
            ensure_option=False,
            style=_WORDS["style"],
            layout={"width": "auto", "min_width": "0"},  # of its own: `reveal` changes it
        )
    made["thumbs"].add_class("lee-thumbs").add_class(thumbs_class(made["thumbs"]))
    return made


def thumbs_class(thumbs: widgets.ToggleButtons) -> str:
    """The class by which the style of the small pictures finds them, on a page with several explorers too."""
    return f"lee-thumbs-{thumbs.model_id}"


def offer_thumbs(thumbs: widgets.ToggleButtons, indices: Sequence[int], titles: Sequence[str]) -> None:
    """Put images with the names of their classes, as far as they have any, on the buttons."""
    thumbs.options = [(f"{i}: {titles[i]}" if i < len(titles) else str(i), i) for i in indices]
    thumbs.tooltips = [text for text, _ in thumbs.options]


def _patch(side: int) -> str:
    return {0: "tokens of the model, or eighths of the side", 1: "single pixels"}.get(side, f"{side} × {side} pixels")


def lists(control: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Each list, and what it shows of what the field below it says."""
    pairs = [(control[f"list_{name}"], control[name].value.strip()) for name in NAMES]
    return [(one, value if value in (known for _, known in one.options) else OTHER) for one, value in pairs]


def reveal(control: Mapping[str, Any]) -> None:
    """Show the fields for names below the lists that leave it to them."""
    for name in NAMES:
        control[name].layout.display = None if control[f"list_{name}"].value == OTHER else "none"


def mixture(state: State) -> list[widgets.FloatSlider]:
    """The sliders of the mixture."""
    pairs = zip(SLIDERS, state.mixture, strict=True)
    return [_slider(generator.name.replace("_", " "), c, 1.0, 0.05) for generator, c in pairs]


def _group(title: str, children: Sequence[Any]) -> widgets.VBox:
    heading = widgets.HTML(drawing.box(f"<h2>{title}</h2>"))
    return widgets.VBox([heading, *children], layout={"width": "auto", "min_width": "0"})


def _folded(title: str, children: Sequence[Any]) -> widgets.Accordion:
    return widgets.Accordion([widgets.VBox(children)], titles=(title,), selected_index=None)


def tabs(control: Mapping[str, Any], shown: Mapping[str, widgets.HTML]) -> widgets.Tab:
    """The tabs, each with what it is about, its own control if it has one, and what it shows."""
    own = {"Where in the picture": [control["patch"]], "Along the orbit": [control["reach"]]}
    pages = [
        widgets.VBox([widgets.HTML(drawing.box(f"<p>{NOTES[title]}</p>")), *own.get(title, ()), shown[title]])
        for title in TABS
    ]
    made = widgets.Tab(pages, titles=tuple(TABS), selected_index=0)
    return made.add_class("lee-tabs")


def arranged(
    control: Mapping[str, Any],
    sliders: Sequence[widgets.FloatSlider],
    shown: Mapping[str, widgets.HTML],
    results: widgets.Tab,
) -> widgets.VBox:
    """Controls on the left and what they show beside them; below each other where there is no room for that."""
    c = control
    formats = widgets.HTML(drawing.box(drawing.FORMATS))
    first = widgets.VBox([c["preset"]]).add_class("lee-first")
    steering = [
        first,
        _group("Motion", [c["generator"], c["t"], _folded("Mixture of motions", list(sliders)), shown["motion"]]),
        _group("Image", [c["list_images"], c["images"], shown["images"], c["thumbs"], shown["thumbs"], c["index"]]),
        _folded("A picture of your own", [c["upload"], formats, shown["upload"]]),
        _group("Models", [c["list_model0"], c["model0"], c["list_model1"], c["model1"], shown["models"]]),
        _folded("How it is computed", [c["kernel"], c["boundary"], c["n"], c["pretrained"]]),
    ]
    frames = widgets.VBox([shown["status"], shown["frames"]]).add_class("lee-pictures")
    left = widgets.VBox(steering).add_class("lee-left")
    right = widgets.VBox([frames, results, shown["errors"].add_class("lee-errors")]).add_class("lee-right")
    both = widgets.Box([left, right]).add_class("lee-both")
    return widgets.VBox([widgets.HTML(drawing.STYLE + drawing.HEAD), both]).add_class("lee-explorer")
