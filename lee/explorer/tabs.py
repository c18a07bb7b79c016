"""The explorer's tabs: what each one computes and draws of a model of the state, as HTML."""

from collections.abc import Callable

from lee.explorer import drawing, plots
from lee.explorer.measures import Measures, class_names
from lee.explorer.recipe import recipe
from lee.explorer.state import State


def curves(measures: Measures, state: State, which: int) -> str:
    """Probabilities over `t`, with the Lie derivative at the current `t` as tangents."""
    generator = state.generator
    return plots.curves(
        measures.curve(state, which), measures.touch(state, which), height=_height(state),
        model=state.models[which], t=state.t, name=generator.name, unit=generator.unit,
    )  # fmt: skip


def where(measures: Measures, state: State, which: int) -> str:
    """Which pixels of the image hold the error."""
    name, found = state.generator.name, measures.map(state, which)
    if found.share.isnan().any():
        return _nothing(state, which)
    patch = measures.patch(state, which)
    return drawing.where(measures.image(state, which), found.share, patch=patch, model=state.models[which], name=name)


def orbit(measures: Measures, state: State, which: int) -> str:
    """Outputs along the orbit, their derivative integrated, and where the class flips."""
    generator, found = state.generator, measures.orbit(state, which)
    names = class_names(state.models[which], state.pretrained, found.outputs.shape[-1])
    return plots.orbit(
        found, names=names, model=state.models[which], name=generator.name, unit=generator.unit, height=_height(state)
    )


def layers(measures: Measures, state: State, which: int) -> str:
    """The contributions of the layers."""
    frame = measures.layers(state, which)
    if frame["self_share"].isna().any():
        return _nothing(state, which)
    return drawing.layers(frame, model=state.models[which], name=state.generator.name)


def code(measures: Measures, state: State, which: int) -> str:
    """Lines of Python that reproduce what is shown."""
    sides = measures.side(state), measures.side(state, which)
    total = len(measures.images(state, sides[0]))
    return drawing.code(recipe(state, total, *sides, measures.patch(state, which), which))


def _nothing(state: State, which: int) -> str:
    return drawing.error(
        f"The Lie derivative of {state.models[which]} along {state.generator.name} is zero for this image: there is nothing to "
        "share out."
    )


def _height(state: State) -> int:
    return plots.TALL if len(state.models) == 1 else plots.LOW


Tab = Callable[[Measures, State, int], str]
"""What draws a model of a state, by its number."""

TABS: dict[str, Tab] = {
    "Curves": curves, "Where in the picture": where, "Along the orbit": orbit, "Layers": layers, "Code": code,
}  # fmt: skip
"""By title; the first one is open at the beginning."""

NOTES = {
    "Curves": "Thin lines: probabilities of the likeliest classes. Thick ones: their Lie derivative where t stands, as a tangent.",
    "Where in the picture": "Which pixels hold the squared Lie derivative at t = 0: vermilion ones add to it, blue ones cancel.",
    "Along the orbit": "Coloured lines: probabilities, and what the derivative at 0 predicts (straight). Circles: the derivative, "
    "summed from 0. Upright lines: where the class flips, and where it should by the prediction (dotted).",
    "Layers": "What each layer by itself adds to the Lie derivative of the original image; all together make 100 %.",
    "Code": "The same numbers without this app.",
}
"""What is to be seen, by title."""
