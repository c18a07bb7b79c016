"""What the explorer shows, as lines of Python that reproduce it without the explorer."""

from lee.datasets.embedded import MEMBERS
from lee.explorer.pictures import MOST_IMAGES
from lee.explorer.state import SLIDERS, State
from lee.geometry.generators import NAMED


def recipe(state: State, side: int, which: int = 0) -> str:
    """Lines that print, at `t = 0`, the Lie derivative of the likeliest class and the error of the chosen image.

    Args:
        state: What is shown.
        side: Side in pixels of the images that the model takes.
        which: Which of the state's models, from 0.
    """
    name = f"rgb:{state.images}" if "digits" in state.images or "mnist" in state.images else state.images
    few = "" if state.images in MEMBERS else f"n={MOST_IMAGES}, "
    image = f'lee.datasets.load("{name}", {few}size={side}).images[{state.index}:{state.index + 1}]'
    if state.upload is not None:
        image = f"…  # your picture as a tensor (1, 3, {side}, {side}) in [0, 1]"
    given = ", pretrained=True" if state.pretrained else ""
    how = "".join(
        f', {key}="{value}"'
        for key, value, usual in (("kernel", state.kernel, "fourier"), ("boundary", state.boundary, "reflect"))
        if value != usual
    )
    return (
        "import lee, lee.datasets, lee.models\n"
        f'model = lee.models.load("{state.models[which]}"{given})\n'
        f"x = {image}\n"
        f"derivative = lee.lie_derivative(model, x, {_motion(state)}{how})[0]  # at t = 0\n"
        "print(derivative[model(x)[0].argmax()], derivative.square().mean())  # of the likeliest class; the error here\n"
    )


def _motion(state: State) -> str:
    """The generator as Python: a name, or a sum."""
    if state.generator.name in NAMED:
        return f'"{state.generator.name}"'
    pairs = zip(state.mixture, SLIDERS, strict=True)
    return " + ".join(f'{c:g} * lee.geometry.generators.NAMED["{g.name}"]' for c, g in pairs if c)
