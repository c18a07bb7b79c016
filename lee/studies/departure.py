"""Sets of images that depart from a training set: how far they lie, and what becomes of a local equivariance error there.

A table of a sweep whose measurements are sets of images, read: ratios between sets, by several yardsticks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from lee.errors import InputError, nearest
from lee.geometry.generators import AnyGenerator
from lee.metrics.yardsticks import TRANSLATION
from lee.statistics import SetRatio, set_ratio
from lee.sweep.results import Results

#: What an error can be held against, and what it is called in charts.
NAMES = {
    "probabilities": "probabilities (the paper's)",
    "logits": "scores",
    "flatness": "probabilities / scores",
    "size": "scores / their size",
    "speed": "scores / the image's speed",
    "foreign": "scores / foreign changes",
    "features": "features / their variance",
}
Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Departures:
    """A table of a sweep over sets of images.

    Args:
        sweep: results with the outputs `probabilities` and `logits`, these with the measures `yardsticks` and `distance`, and for
            the yardstick `features` with that output and the measure `deviation`; each measurement is a set of images.
        generators: whose squared errors are added; the yardsticks `speed` and `foreign` are known for translation only.
        reference: the model in whose features distances are taken.

    Raises:
        InputError: every model failed on some set.
    """

    sweep: Results = field(repr=False)
    generators: Sequence[AnyGenerator] = TRANSLATION
    reference: str = "zoo/resnet-s"
    _read: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError(
                "Every model of the sweep failed on some set. Measure them again with `lee sweep --retry`."
            )

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets, sorted."""
        return tuple(sorted(set(self.sweep.tasks["measurement"])))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models that failed nowhere, sorted."""
        return tuple(sorted(set(self.sweep.models) - set(self.sweep.errors["model"])))

    def distances(self) -> pd.DataFrame:
        """Squared Fréchet distances from the training set: `distance` and `limit`, indexed by the set."""
        rows = self.sweep.select(model=self.reference).figures("distance")
        return rows.set_index("measurement")[["distance", "limit"]]

    def speed(self, name: str) -> float:
        """Mean squared speed of the images of a set under translation.

        Args:
            name: the set.
        """
        return float(self._column(name, "speed").iloc[:, 0].mean())

    def ratio(
        self, name: str, base: str, yardstick: str = "probabilities", *, models: Iterable[str] | None = None,
        same_images: bool = False,
    ) -> SetRatio:  # fmt: skip
        """How many times larger the error, by a yardstick, is on one set than on another.

        Args:
            name: a set.
            base: another set.
            yardstick: `probabilities`, `logits`, `flatness`, `size`, `speed`, `foreign` or `features`.
            models: over which the geometric mean is taken; all by default.
            same_images: the images of one set are made from those of the other, which may have more.

        Raises:
            InputError: an unknown set, yardstick or model.
        """
        chosen = self._chosen(models)
        (a, below_a), (b, below_b) = (self._numbers(part, yardstick, chosen) for part in (name, base))
        if same_images:
            n = min(a.shape[1], b.shape[1])
            a, b = a[:, :n], b[:, :n]
            below_a, below_b = (None if s is None else s[..., :n] for s in (below_a, below_b))
        return set_ratio(a, b, first_scale=below_a, second_scale=below_b, same_images=same_images)

    def between(self, model: str, other: str, name: str, yardstick: str = "probabilities") -> SetRatio:
        """How many times larger the error of one model is than that of another on the same images of a set.

        Args:
            model: a model.
            other: the model that it is compared with.
            name: a set.
            yardstick: as for :meth:`ratio`.

        Raises:
            InputError: an unknown set, yardstick or model.
        """
        (a, below_a), (b, below_b) = (self._numbers(name, yardstick, self._chosen([m])) for m in (model, other))
        return set_ratio(a, b, first_scale=below_a, second_scale=below_b, same_images=True)

    def compare(
        self, names: Iterable[str], base: str, yardsticks: Iterable[str] = ("probabilities",), *,
        models: Iterable[str] | None = None, same_images: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """:meth:`ratio` of several sets and yardsticks to one set.

        Args:
            names: the sets.
            base: the set that they are compared with.
            yardsticks: what errors are held against, as for :meth:`ratio`.
            models: those that count; None for all.
            same_images: whether image i of one set is made from image i of the other.

        Returns:
            A row per set and yardstick: `set`, `yardstick` (as in charts), `key`, `ratio`, `low`, `high`, `models` and `n`.
        """
        rows, names, models = [], list(names), self._chosen(models)
        for key in yardsticks:
            for name in names:
                r = self.ratio(name, base, key, models=models, same_images=same_images)
                numbers = {"ratio": r.value, "low": r.low, "high": r.high, "models": r.models, "n": r.n}
                rows.append({"set": name, "yardstick": NAMES[key], "key": key, **numbers})
        return pd.DataFrame(rows)

    def per_model(self, name: str, base: str) -> pd.DataFrame:
        """:meth:`ratio` of the probabilities of each model alone: its intervals are over images only.

        Args:
            name: the set.
            base: the set that it is compared with.

        Returns:
            A row per model: `model`, `family`, `ratio`, `low`, `high`.
        """
        family = self.sweep.tasks.drop_duplicates("model").set_index("model")["family"]
        rows = []
        for model in self.models:
            r = self.ratio(name, base, models=[model])
            about = {"model": model.removeprefix("zoo/"), "family": family[model]}
            rows.append({**about, "ratio": r.value, "low": r.low, "high": r.high})
        return pd.DataFrame(rows)

    def share(self, name: str) -> pd.Series:
        """Mean answer to the motion over mean answer to foreign changes, of each model on a set; 1 for knowing nothing.

        Args:
            name: the set.
        """
        values, below = self._numbers(name, "foreign", self.models)
        assert below is not None
        return pd.Series(values.mean(1) / below.mean(1), index=list(self.models), name=name)

    def _chosen(self, models: Iterable[str] | None) -> list[str]:
        chosen = list(self.models if models is None else models)
        for model in chosen:
            if model not in self.models:
                raise InputError(f"The table has no model {model!r}.{nearest(model, self.models)}")
        return chosen

    def _numbers(self, name: str, yardstick: str, models: Sequence[str]) -> tuple[Table, Table | None]:
        """Numbers of each model and image (M, n) on a set, and what their means are divided by, if anything."""
        if name not in self.sets:
            raise InputError(f"There is no set {name!r} in the table.{nearest(name, self.sets)}")
        if yardstick not in NAMES:
            raise InputError(f"There is no yardstick {yardstick!r}.{nearest(yardstick, NAMES)}")
        if yardstick in ("speed", "foreign"):
            below = self._column(name, yardstick)[list(models)].dropna()
            own = self._table(name, "logits", TRANSLATION).loc[below.index, list(models)]
            return own.to_numpy(dtype=float).T, below.to_numpy(dtype=float).T
        if yardstick == "flatness":
            return self._errors(name, "probabilities", models), self._errors(name, "logits", models)
        output = yardstick if yardstick in ("probabilities", "features") else "logits"
        errors = self._errors(name, output, models)
        if yardstick in ("probabilities", "logits"):
            return errors, None
        if yardstick == "features":
            below = self.sweep.select(measurement=name, output="features").per_image_of("deviation")
        else:
            below = self._column(name, "output_square")
        return errors, below[list(models)].to_numpy(dtype=float).T

    def _errors(self, name: str, output: str, models: Sequence[str]) -> Table:
        return self._table(name, output, self.generators)[list(models)].to_numpy(dtype=float).T

    def _table(self, name: str, output: str, generators: Sequence[AnyGenerator]) -> pd.DataFrame:
        """Squared errors summed over generators: a row per image and a column per model."""
        key = name, f"{output} {generators}"
        if key not in self._read:
            self._read[key] = self.sweep.select(measurement=name, output=output).per_image(list(generators))
        return self._read[key]

    def _column(self, name: str, column: str) -> pd.DataFrame:
        """A column of the scores' tasks in the same form."""
        if (name, column) not in self._read:
            self._read[name, column] = self.sweep.select(measurement=name, output="logits").per_image_of(column)
        return self._read[name, column]
