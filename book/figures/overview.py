"""Draw the picture at the top of the README from live measurements: `python book/figures/overview.py`.

Left: a photograph, its rotation, and its tangent image. Right: the local equivariance error of the zoo's three trained
models, with standard errors.
"""

from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert
from torch import Tensor

import lee
from lee import datasets, models
from lee.book.notebook import setup
from lee.charts.pictures import data_uri, tinted

MODELS = {"ResNet": "zoo/resnet-s", "ViT": "zoo/vit-s", "Mixer": "zoo/mixer-s"}
GENERATORS = ("translation_x", "rotation", "scale", "shear_x")
IMAGES = 200


def panel(picture: object, title: str) -> alt.Chart:
    """One square picture under its title."""
    frame = pd.DataFrame({"url": [data_uri(picture)]})
    mark = alt.Chart(frame, title=title).mark_image(width=170, height=170)
    return mark.encode(url="url:N", x=alt.value(85), y=alt.value(85)).properties(width=170, height=170)


def photographs() -> alt.HConcatChart:
    """A photograph, the same after a rotation by 0.35 rad, and its tangent image."""
    photo: Tensor = datasets.load("photos", n=2, size=170).images[1:2]
    turned = lee.warp(photo, lee.ROTATION, 0.35).clamp(0, 1)
    tangent = lee.Image().infinitesimal([lee.ROTATION], photo, lee.Sampler().for_image(170, 170))[0]
    parts = [(photo[0], "z"), (turned[0], "ρ(t) z"), (tinted(tangent[0]), "X·z")]
    return alt.hconcat(*(panel(image, title) for image, title in parts), spacing=12)


def measurements() -> pd.DataFrame:
    """LEE per model and generator, with its standard error."""
    patches = datasets.load("patches", n=IMAGES).images
    rows = []
    for label, name in MODELS.items():
        gram = lee.equivariance_gram(models.load(name), patches, progress=False)
        for generator in GENERATORS:
            value, stderr, *_ = gram.lee(generator)
            low, high = value - stderr, value + stderr
            rows.append({"model": label, "generator": generator, "LEE": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def dots(frame: pd.DataFrame) -> alt.LayerChart:
    """One row per generator and a colour and shape per model."""
    names = list(MODELS)
    base = alt.Chart(frame).encode(
        y=alt.Y("generator:N", title=None, sort=list(GENERATORS)),
        yOffset=alt.YOffset("model:N", sort=names),
        color=alt.Color(
            "model:N",
            sort=names,
            scale=alt.Scale(range=["#0072B2", "#D55E00", "#009E73"]),
            legend=alt.Legend(orient="right", title=None),
        ),
    )
    title = "local equivariance error ± standard error, per squared unit of the motion"
    point = base.mark_point(size=70, filled=True).encode(
        x=alt.X("LEE:Q", title=title, axis=alt.Axis(tickCount=6)), shape=alt.Shape("model:N", sort=names, legend=None)
    )
    bar = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    return alt.layer(bar, point).properties(width=420, height=190)


def main() -> None:
    """Write `book/_static/overview.png`."""
    setup()
    chart = alt.vconcat(photographs(), dots(measurements()), spacing=18).configure_view(stroke=None)
    chart = chart.properties(background="white", padding=16)
    target = Path(__file__).parents[1] / "_static" / "overview.png"
    temporary = target.with_suffix(".tmp")
    temporary.write_bytes(vl_convert.vegalite_to_png(chart.to_json(), scale=2))
    temporary.replace(target)


if __name__ == "__main__":
    main()
