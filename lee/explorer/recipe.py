"""What the explorer shows, as lines of Python that reproduce it without the explorer."""

from lee.datasets.embedded import MEMBERS
from lee.explorer.pictures import MOST_IMAGES
from lee.explorer.state import REACH, SLIDERS, State
from lee.geometry.generators import NAMED


def recipe(state: State, total: int, first: int, side: int, patch: int, which: int) -> str:
    """Lines that print what is shown of one model of a state, by its number.

    The data set offers `total` images; the `first` model takes them in one size in pixels, this one in another, its `side`.
    """
    usual = {"kernel": "fourier", "boundary": "reflect"}
    how = "".join(f', {name}="{value}"' for name in usual if (value := getattr(state, name)) != usual[name])
    amounts = sorted({-REACH, 0.0, state.t, REACH})
    path, imported = f"generator, {amounts}{how}", ""
    if state.generator.name in NAMED:
        generator = f'"{state.generator.name}"'
    else:
        pairs = [(c, g) for c, g in zip(state.mixture, SLIDERS, strict=True) if c]
        generator = " + ".join(f'{c:g} * lee.geometry.generators.NAMED["{g.name}"]' for c, g in pairs)
        if not state.generator.is_spatial:  # the path of such a mixture is the explorer's own
            path, imported = f"motion.action(generator{how}), {amounts}", "from lee.explorer import motion\n"
    return f"""import lee, lee.datasets, lee.models
{imported}
model = lee.models.load("{state.models[which]}"{", pretrained=True" if state.pretrained else ""})
{_images(state, total, first, side)}
generator = {generator}

path = lee.orbit(model, x, {path})
p, slopes = path.outputs[{amounts.index(state.t)}], path.derivatives[{amounts.index(state.t)}]  # at t = {state.t:g}
print(p.max(), slopes[p.argmax()])  # of the likeliest class
print(lee.local_equivariance_error(model, x, generator{how}))  # of this image
print(lee.error_map(model, x, generator{how}).patches({patch}).max())  # the largest share of a patch
print(lee.layerwise(model, x, generator{how}).frame["self_share"].max())  # and of a layer
"""


def _images(state: State, total: int, first: int, side: int) -> str:
    """Lines that make the image `x`."""
    if state.upload is not None:
        return f"x = …  # your picture as a tensor (1, 3, {side}, {side}) in [0, 1]"
    name = f"rgb:{state.images}" if "digits" in state.images or "mnist" in state.images else state.images
    few = "" if state.images in MEMBERS or total < MOST_IMAGES else f"n={MOST_IMAGES}, "
    line = f"x = lee.datasets.load({name!r}, {few}size={first}).images[{state.index}:{state.index + 1}]"
    return line if side == first else f"{line}\nx = lee.datasets.image_files.resize(x, ({side}, {side}))"
