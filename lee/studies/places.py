"""Where in pictures errors lie, in files beside the tables: shares of the border, and maps of the saliency transformer.

The first are numbers of many photographs of the user's folder, the second pictures of embedded ones; chapter 15 shows both.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lee import datasets, models
from lee.errors import InputError
from lee.geometry import Sampler
from lee.geometry.generators import get
from lee.measure import error_map, infinitesimal_actions
from lee.models.reading import read_state, write_state
from lee.paths import package_data
from lee.sweep.results import read_csv, write_csv

#: The embedded photographs and the motion of the saliency transformer's maps.
PICTURED, MOTION = ("chelsea", "flower"), "translation_x"
MAPS = "saliency-maps.safetensors"


def borders(
    name: str, dataset: str, n: int, path: Path, *, border: int = 8,
    generators: Sequence[str] = ("translation_x", "rotation", "scale"),
) -> pd.DataFrame:  # fmt: skip
    """Measure how much of the error of each image lies in its outer border, and write it as CSV.

    Args:
        name: Of a network.
        dataset: Of its images, such as `imagefolder:imagenet-sample`.
        n: How many images.
        path: The file to write.
        border: Width of the border in pixels.
        generators: Along which motions, each by itself.

    Returns:
        A row per motion and image: `generator`, `image`, its `lee`, the signed share of the border `net`, its part of the sum of
        all pixels' shares without signs `gross`, of the sizes of the tangent images `edges`, and of the area `area`.

    Raises:
        InputError: If the network or the images can't be had.
    """
    model = models.load(name)
    x, rows = datasets.load(dataset, n=n, size=models.input_size(model)).images, []
    inner = slice(border, -border)

    def outer(values: Tensor) -> Tensor:
        return 1 - values[..., inner, inner].sum((-2, -1)) / values.sum((-2, -1))

    area = float(outer(torch.ones(x.shape[-2:])))
    chosen = [get(g) for g in generators]
    for first in tqdm(range(0, n, 4), leave=False):
        part = x[first : first + 4]
        found = error_map(model, part, chosen)
        moving = infinitesimal_actions(chosen, part, Sampler()).norm(dim=2)
        for g, size in zip(chosen, moving, strict=True):
            one = found.along(g)
            shares = {"net": outer(one.share), "gross": outer(one.share.abs()), "edges": outer(size)}
            columns = {"lee": one.gram.per_image[:, 0, 0], **shares}
            frame = pd.DataFrame({key: value.tolist() for key, value in columns.items()})
            rows.append(frame.assign(generator=g.name, image=range(first, first + len(part)), area=area))
    frame = pd.concat(rows)[["generator", "image", "lee", "net", "gross", "edges", "area"]]
    return write_csv(frame.sort_values(["generator", "image"], ignore_index=True), path, 4)


def read_borders() -> pd.DataFrame:
    """The committed shares, `data/results/places.csv`, as :func:`borders` returns them."""
    return read_csv("places.csv", "lee.studies.places.borders")


def saliency_maps() -> dict[str, Tensor]:
    """Saliency of the pictured photographs by the saliency transformer and its error `‖L(q)‖²` at each pixel, (n, 224, 224) each.

    Raises:
        InputError: If the packages of :mod:`lee.models.saliency` are missing.
    """
    net = models.load("lee.models.saliency:vit_s")
    photographs = datasets.load("photos", size=224)
    x = photographs.images[[photographs.class_names.index(name) for name in PICTURED]]
    errors = error_map(net, x, MOTION, output="logits", chunk=1).output_map
    assert errors is not None
    with torch.no_grad():
        return {"saliency": net(x)[:, 0], "error": errors}


def write_maps(path: Path) -> None:
    """Write :func:`saliency_maps` in half precision, as the committed `data/results/saliency-maps.safetensors` has them.

    Args:
        path: The file.
    """
    write_state({key: value.half() for key, value in saliency_maps().items()}, path)


def read_maps() -> dict[str, Tensor]:
    """The committed maps, as :func:`saliency_maps` returns them, rounded to half precision.

    Raises:
        InputError: If there are none: they are part of the repository, not of the installed package.
    """
    path = package_data() / "results" / MAPS
    if not path.is_file():
        raise InputError(f"There is no {path}. Clone the repository, or make it with lee.studies.places.write_maps.")
    return {key: value.float() for key, value in read_state(path).items()}
