"""Charts: what they refuse, what they promise to readers, and that equal data give equal bytes."""

import base64
import io
import json
import math
import re

import altair
import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert
from PIL import Image

from lee import charts
from lee.charts import parts
from lee.charts.fields import grid_of_arrows
from lee.charts.theme import typeset
from lee.errors import InputError
from lee.geometry.generators import BRIGHTNESS, ROTATION, SCALE, TRANSLATION_X

WORDS = {"caption": "What to see.", "alt": "What is drawn."}


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        {"t": t, "value": k + 0.1 * t, "se": 0.01 * (t + 1), "kind": f"kind {k}", "step": s}
        for k in (1, 2, 3)
        for t in range(4)
        for s in (0, 1, 2)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def every(frame: pd.DataFrame) -> dict[str, altair.TopLevelMixin]:
    images = torch.rand(3, 3, 8, 8)
    return {
        "lines": charts.lines(frame, "t", "value", by="kind", error="se", slider="step", **WORDS),
        "points": charts.lines(frame[frame.t > 0], "t", "value", by="kind", points=True, log="xy", **WORDS),
        "scatter": charts.scatter(frame, "t", "value", by="kind", label="kind", **WORDS),
        "dots": charts.dots(frame, "value", "kind", error="se", by="t", **WORDS),
        "bars": charts.bars(frame, "value", "kind", error="se", **WORDS),
        "arrows": charts.arrows([ROTATION, SCALE], image=images[0], **WORDS),
        "orbit": charts.orbit({"a": images, "b": images}, [-1, 0, 1], parameter="shift", **WORDS),
    }


KINDS = ("lines", "points", "scatter", "dots", "bars", "arrows", "orbit")


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_says_what_it_shows(every: dict[str, altair.TopLevelMixin], kind: str) -> None:
    spec = every[kind].to_dict()
    assert spec["description"] == WORDS["alt"]
    assert spec["usermeta"] == {"caption": WORDS["caption"]}


@pytest.mark.parametrize("kind", KINDS)
def test_vega_lite_compiles_every_chart(every: dict[str, altair.TopLevelMixin], kind: str) -> None:
    assert "<svg" in vl_convert.vegalite_to_svg(every[kind].to_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_specs_are_neutral_between_light_and_dark(every: dict[str, altair.TopLevelMixin], kind: str) -> None:
    charts.enable()
    text = json.dumps({"spec": every[kind].to_dict()["config"], "theme": altair.theme.get()().get("config")})
    assert not any(word in text for word in ("background", "labelColor", "titleColor", "domainColor"))


def test_equal_data_give_equal_bytes(frame: pd.DataFrame) -> None:
    noisy = frame.assign(value=frame["value"] * (1 + 1e-9))
    first, second = (charts.lines(f, "t", "value", by="kind", error="se", **WORDS) for f in (frame, noisy))
    assert first.to_json() == second.to_json()


def test_colour_and_shape_share_one_legend(frame: pd.DataFrame) -> None:
    for chart in (
        charts.lines(frame, "t", "value", by="kind", error="se", **WORDS),
        charts.lines(frame, "t", "value", by="kind", points=True, **WORDS),
        charts.dots(frame, "value", "kind", by="kind", error="se", **WORDS),
        charts.scatter(frame, "t", "value", by="kind", **WORDS),
    ):
        assert len(vl_convert.vegalite_to_vega(chart.to_dict())["legends"]) == 1


def test_a_column_says_which_points_of_a_curve_are_marked(frame: pd.DataFrame) -> None:
    marked = frame.assign(whole=frame["t"] % 2 == 0)
    curves, points = charts.lines(marked, "t", "value", by="kind", points="whole", **WORDS).to_dict()["layer"]
    assert "transform" not in curves
    assert points["transform"] == [{"filter": "datum['whole']"}]
    assert "<svg" in vl_convert.vegalite_to_svg(charts.lines(marked, "t", "value", points="whole", **WORDS).to_dict())
    assert (
        len(
            vl_convert.vegalite_to_vega(
                charts.lines(marked, "t", "value", by="kind", points="whole", **WORDS).to_dict()
            )["legends"]
        )
        == 1
    )
    with pytest.raises(InputError, match="no column 'hole'"):
        charts.lines(marked, "t", "value", points="hole", **WORDS)


def test_words_beside_points_replace_the_legend(frame: pd.DataFrame) -> None:
    chart = charts.scatter(frame, "t", "value", by="kind", label="kind", **WORDS)
    assert "legends" not in vl_convert.vegalite_to_vega(chart.to_dict())


def test_words_stand_below_a_point_a_little_lower_than_a_named_neighbour() -> None:
    points = {"x": [0, 10, 12, 13, 14], "y": [1.0, 100, 102, 1, 103], "name": ["a", "b", "c", "d", ""]}
    spec = charts.scatter(pd.DataFrame(points), "x", "y", label="name", **WORDS).to_dict()
    words = {
        layer["mark"]["dy"]: {row["name"] for row in spec["datasets"][layer["data"]["name"]]}
        for layer in spec["layer"]
        if layer["mark"]["type"] == "text"
    }
    assert words == {9: {"b"}, -7: {"a", "c", "d", ""}}
    logarithmic = pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0], "name": ["a", "b"]})
    assert parts.crowded(logarithmic, "x", "y", "name", "y") == [False, False]


def test_a_slider_shows_the_rows_of_one_value(frame: pd.DataFrame) -> None:
    spec = charts.lines(frame, "t", "value", by="kind", slider="step", **WORDS).to_dict()
    (parameter,) = spec["params"]
    assert parameter["bind"] == {"input": "range", "min": 0, "max": 2, "step": 1, "name": "step "}
    assert parameter["value"] == 1
    assert spec["transform"] == [{"filter": "abs(datum['step'] - picked) < 0.5"}]


def test_axes_stay_put_while_a_slider_moves(frame: pd.DataFrame) -> None:
    spec = charts.lines(frame, "t", "value", error="se", slider="step", **WORDS).to_dict()
    domains = {tuple(layer["encoding"]["y"]["scale"]["domain"]) for layer in spec["layer"]}
    assert domains == {(0.99, 3.34)}


def test_error_bands_stay_positive_on_a_logarithmic_axis() -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": [1.0, 0.5], "se": [2.0, 0.1]})
    spec = charts.lines(frame, "x", "y", error="se", log="y", **WORDS).to_dict()
    (rows,) = spec["datasets"].values()
    assert [row["_low"] for row in rows] == [0.01, 0.4]


@pytest.mark.parametrize(
    ("smallest", "largest", "told"),
    [(1e-8, 1.0, {"10⁻⁸", "10⁻⁴", "1"}), (2e-7, 9e-7, {"2×10⁻⁷"}), (1.0, 1e7, {"1", "10", "10⁷"}),
     (1e-3, 10.0, {"0.001", "10"})],
)  # fmt: skip
def test_a_logarithmic_axis_writes_all_its_numbers_alike(smallest: float, largest: float, told: set[str]) -> None:
    frame = pd.DataFrame({"x": [0.0, 1.0], "y": [smallest, largest]})
    spec = charts.lines(frame, "x", "y", log="y", caption="c", alt="a").to_dict()
    words = set(re.findall(r"<text[^>]*>([^<]+)</text>", vl_convert.vegalite_to_svg(spec)))
    assert told <= words
    assert not any(re.fullmatch(r"\de[-+]\d+|0\.0000+\d+", word) for word in words)


def test_a_band_shows_the_ends_of_an_interval() -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": [1.0, 0.5], "low": [-0.1, 0.4], "high": [3.0, 0.7]})
    spec = charts.lines(frame, "x", "y", error=("low", "high"), log="y", **WORDS).to_dict()
    (rows,) = spec["datasets"].values()
    assert [(row["_low"], row["_high"]) for row in rows] == [(0.01, 3.0), (0.4, 0.7)]
    with pytest.raises(InputError, match="no column 'hihg'"):
        charts.lines(frame, "x", "y", error=("low", "hihg"), **WORDS)


@pytest.mark.parametrize("missing", ["caption", "alt"])
@pytest.mark.parametrize("text", ["", "   ", None])
def test_no_figure_without_caption_and_alternative_text(frame: pd.DataFrame, missing: str, text: str) -> None:
    with pytest.raises(InputError, match=missing):
        charts.lines(frame, "t", "value", **{**WORDS, missing: text})
    with pytest.raises(InputError, match=missing):
        charts.pictures(torch.rand(1, 3, 8, 8), **{**WORDS, missing: text})


def test_bad_frames_are_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"no column 'valeu'\. Did you mean 'value'"):
        charts.lines(frame, "t", "valeu", **WORDS)
    with pytest.raises(InputError, match="at least one row"):
        charts.bars(frame.iloc[:0], "value", "kind", **WORDS)
    with pytest.raises(InputError, match="must hold numbers"):
        charts.lines(frame, "t", "kind", **WORDS)
    with pytest.raises(InputError, match="isn't positive everywhere"):
        charts.lines(frame, "t", "value", log="x", **WORDS)
    with pytest.raises(InputError, match="names no axis"):
        charts.scatter(frame, "t", "value", log="z", **WORDS)
    with pytest.raises(InputError, match="evenly spaced"):
        charts.lines(frame[frame.step != 1].assign(step=[0, 1, 3] * 8), "t", "value", slider="step", **WORDS)


def test_rounding_keeps_what_is_not_a_number() -> None:
    frame = pd.DataFrame({"a": [1.23456789, math.nan, math.inf], "b": ["x", "y", "z"], "c": [123456, 2, 3]})
    result = charts.rounded(frame)
    assert result["a"][0] == 1.235
    assert math.isnan(result["a"][1])
    assert result["a"][2] == math.inf
    assert result[["b", "c"]].equals(frame[["b", "c"]])


def decode(html: str, index: int = 0) -> np.ndarray:
    data = html.split("base64,")[index + 1].split('"')[0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(float)


def test_small_pictures_keep_every_pixel() -> None:
    image = torch.rand(3, 16, 20)
    shown = decode(charts.pictures([image], **WORDS).html)
    assert np.array_equal(shown, (image * 255).round().permute(1, 2, 0).numpy())


def test_large_pictures_are_compressed_and_close() -> None:
    ramp = torch.linspace(0, 1, 128).expand(3, 128, 128)
    picture = charts.pictures([ramp], **WORDS)
    assert "image/jpeg" in picture.html
    assert abs(decode(picture.html) / 255 - ramp.permute(1, 2, 0).numpy()).max() < 0.03


def test_signed_pictures_run_from_blue_over_white_to_vermilion() -> None:
    image = torch.tensor([-2.0, 0.0, 2.0]).expand(1, 1, 3)
    blue, white, vermilion = decode(charts.pictures([image], signed=True, **WORDS).html)[0]
    assert [*blue] == [0x00, 0x72, 0xB2]
    assert [*white] == [0xF7] * 3
    assert [*vermilion] == [0xD5, 0x5E, 0x00]


def test_pictures_share_one_scale_and_say_it() -> None:
    pair = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), -4.0)])
    picture = charts.pictures(pair, signed=True, titles=["a", "b"], **WORDS)
    assert "−4" in picture.html
    assert "+4" in picture.html
    assert decode(picture.html, 0)[0, 0, 0] > 0xF0  # a quarter of the way from white to vermilion


def test_every_picture_has_an_alternative_text() -> None:
    html = charts.pictures(torch.rand(3, 1, 8, 8), titles=["one <1>", "two", "three"], **WORDS).html
    assert html.count("<img") == html.count('alt="') == 3
    assert f'alt="{WORDS["alt"]}"' in html
    assert "one &lt;1&gt;" in html


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 2, 8, 8), r"C = 1 or 3; got \(2, 8, 8\)"),
        (torch.rand(8, 8), "shape"),
        (torch.full((1, 3, 4, 4), math.nan), "NaN"),
        ([], "at least one image"),
    ],
)
def test_bad_pictures_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        charts.pictures(images, **WORDS)


def test_columns_that_are_asked_for_stay_on_narrow_pages() -> None:
    images = torch.rand(6, 3, 8, 8)
    fixed, free = (charts.pictures(images, columns=columns, **WORDS).html for columns in (3, None))
    assert "grid-template-columns:repeat(3,minmax(0,1fr))" in fixed
    assert "grid-template-columns:repeat(auto-fill," in free


def test_numbers_are_typeset_but_not_in_code_formulas_addresses_and_tags() -> None:
    kept = '`-1` $x^{-1}$ [a-1](b.html#-1) <a id="-1"> 3-5 e-fold 2020-11-30 | ---: |'
    assert typeset(kept) == kept
    assert typeset("[-1.5, -2e-7] by -.5 and (-3)") == "[−1.5, −2×10⁻⁷] by −.5 and (−3)"


def test_as_many_titles_as_pictures() -> None:
    with pytest.raises(InputError, match="2 images need as many titles; got 1"):
        charts.pictures(torch.rand(2, 3, 8, 8), titles=["only one"], **WORDS)


def test_pil_images_are_shown() -> None:
    assert decode(charts.pictures(Image.new("RGB", (4, 4), "#102030"), **WORDS).html)[0, 0].tolist() == [
        16,
        32,
        48,
    ]


def test_arrows_point_along_the_field() -> None:
    grid = grid_of_arrows(ROTATION, 5)
    # ξ = (y, -x) in a frame with y down: at the right-hand edge the arrow points up.
    right = grid[(grid.x == 0.8) & (grid.y == 0)].iloc[0]
    assert right.y2 < right.y
    assert right.x2 == pytest.approx(right.x)
    assert right.angle == pytest.approx(0)
    assert (grid_of_arrows(TRANSLATION_X, 5).angle == 90).all()


def test_a_generator_that_moves_nothing_has_no_arrows() -> None:
    with pytest.raises(InputError, match="'brightness' moves no pixel"):
        charts.arrows(BRIGHTNESS, **WORDS)
    with pytest.raises(InputError, match="at least one generator"):
        charts.arrows([], **WORDS)


def test_an_orbit_needs_a_value_for_each_frame() -> None:
    with pytest.raises(InputError, match="3 frames need as many values of 'angle'; got 2"):
        charts.orbit(torch.rand(3, 3, 8, 8), [0, 1], parameter="angle", **WORDS)


def test_the_renderer_gives_spec_picture_and_words(frame: pd.DataFrame) -> None:
    charts.enable()
    bundle, about = charts.lines(frame, "t", "value", name="fig-one", **WORDS)._repr_mimebundle_()
    assert set(bundle) == {charts.VEGALITE, "image/png", "text/plain"}
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    side = about["image/png"]
    assert picture.size == (2 * side["width"], 2 * side["height"])
    assert side["alt"] == WORDS["alt"]
    assert side["width"] > charts.theme.WIDTH
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert bundle["text/plain"] == WORDS["alt"]
    assert bundle[charts.VEGALITE]["usermeta"] == {"caption": WORDS["caption"], "name": "fig-one", "fluid": True}
    bare = {key: value for key, value in bundle[charts.VEGALITE].items() if key != "title"}
    assert bundle[charts.VEGALITE]["title"]["text"] == [WORDS["caption"]]
    assert side["height"] >= Image.open(io.BytesIO(charts.theme.png(bare))).height // 2 + 18  # a line of caption


def test_a_caption_below_a_picture_is_plain() -> None:
    text = r"The error $c^\top G\,c$ of $\sqrt{x_1}$ is *small*: `lee`, [chapter](a.md), $4\pi^2$, $2\sin\omega$, 95 %."
    assert charts.theme.plain(text) == "The error c′ G c of √(x1) is small: lee, chapter, 4π², 2 sin ω, 95 %."
    words = {"caption": "What *lee* sees, <1>.", "alt": WORDS["alt"]}
    assert "<figcaption>What lee sees, &lt;1&gt;.</figcaption>" in charts.pictures(torch.rand(1, 8, 8), **words).html


def test_a_caption_below_a_picture_says_where_menus_and_sliders_stand(frame: pd.DataFrame) -> None:
    bare = charts.lines(frame, "t", "value", **WORDS)
    assert charts.theme.captioned(bare.to_dict())["title"]["text"] == [WORDS["caption"]]
    menu = altair.param(name="menu", value="b", bind=altair.binding_select(options=["a", "b"], name="motion "))
    slider = altair.param(name="slider", value=0.5, bind=altair.binding_range(min=0, max=1, name="amount "))
    free = altair.param(name="free", value=3)
    moved = bare.add_params(menu, slider, free).to_dict()
    assert charts.theme.captioned(moved)["title"]["text"] == [WORDS["caption"]]
    told = charts.theme.captioned(moved, still=True)["title"]["text"]
    assert told == [f"{WORDS['caption']} Shown here: motion = b, amount = 0.5."]


def test_eight_groups_have_eight_colours_and_fewer_keep_the_theme_s() -> None:
    def drawn(n: int) -> list[str]:
        frame = pd.DataFrame({"x": [0.0] * n, "y": [1.0] * n, "group": [f"network {i}" for i in range(n)]})
        spec = charts.scatter(frame, "x", "y", by="group", caption="Points.", alt="Points.").to_dict()
        return list(spec["layer"][0]["encoding"]["color"]["scale"].get("range", ()))

    assert not drawn(len(charts.PALETTE))
    assert len(set(drawn(len(charts.PALETTE) + 1))) == len(charts.PALETTE) + 1


def test_an_axis_of_few_whole_numbers_has_no_ticks_between_them() -> None:
    def step(values: list[float]) -> object:
        frame = pd.DataFrame({"x": values, "y": [1.0] * len(values)})
        spec = charts.lines(frame, "x", "y", caption="A line.", alt="A line.").to_dict()
        return spec["layer"][0]["encoding"]["x"]["axis"].get("tickMinStep")

    assert step([1, 2, 3, 4, 5]) == 1
    assert step([1.0, 2.5]) is None
    assert step([0, 50, 180]) is None
