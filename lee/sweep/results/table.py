"""A table of a sweep, or a selection of its tasks: what users of results hold in their hands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from lee.errors import InputError, nearest
from lee.geometry.generators import AnyGenerator
from lee.statistics import EquivarianceGram, Estimate
from lee.sweep.results.parts import KEYS, SCORES, generators_of, gram_of, keys_of, numbers_of, values_of
from lee.sweep.table import Part


@dataclass(frozen=True)
class Results:
    """Tasks of a sweep and their numbers, all of them or a selection.

    Args:
        parts: the tasks; failed ones appear in :attr:`tasks` and :attr:`errors` only.
    """

    parts: tuple[Part, ...] = field(repr=False)

    def select(self, **keys: str | Sequence[str]) -> "Results":
        """The tasks that have these values, such as `measurement="main", split=["train", "test"]`.

        Args:
            **keys: any of :data:`KEYS`; models also as a pattern, with or without `zoo/`.

        Raises:
            InputError: an unknown key or value (the nearest is suggested), or no task has them all.
        """
        found = self.parts
        for key, wanted in keys.items():
            if key not in KEYS:
                raise InputError(f"Tasks can't be selected by {key!r}.{nearest(key, KEYS)}")
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            present = {str(part.described[key]) for part in self.parts}
            for value in values:
                if not any(_matches(key, one, value) for one in present):
                    raise InputError(f"No task has {key} {value!r}.{nearest(value, present)}")
            found = tuple(p for p in found if any(_matches(key, p.described[key], value) for value in values))
        if not found:
            raise InputError(f"No task has all of {', '.join(f'{key}={value!r}' for key, value in keys.items())}.")
        return Results(found)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, sorted, failed ones included."""
        return tuple(sorted({part.described["model"] for part in self.parts}))

    @property
    def images(self) -> int:
        """Images per task; of the smallest where tasks differ, those without rows left out."""
        return min((len(part.rows) for part in self._fine), default=0)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per task: the keys, basis, digests, versions, device, seconds, and the error of those that failed."""
        rows = []
        for part in self.parts:
            row = {**{key: part.described[key] for key in KEYS}, "key": part.key, **part.described, **part.origin}
            row["n"] = 0 if part.failed else len(part.rows)
            rows.append({**row, "basis": tuple(row["basis"])})
        frame = pd.DataFrame(rows)
        return frame.assign(error=frame["error"].astype(object).where(frame["error"].notna(), None))

    @property
    def errors(self) -> pd.DataFrame:
        """The rows of :attr:`tasks` that failed."""
        return self.tasks[self.tasks["error"].notna()]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per task and image: the keys, then label, prediction, confidence, loss and the discrete measures.

        `image` is the position in `lee.datasets.load(dataset, split=, n=, seed=)`: the same number is the same image in
        all tasks of one data set, split and seed.
        """
        parts = self._fine
        if not parts:
            raise InputError(self._empty)
        lengths = [len(part.rows) for part in parts]
        columns: dict[str, Any] = {}
        for key in KEYS:
            values = pd.Categorical([part.described[key] for part in parts])
            columns[key] = pd.Categorical.from_codes(np.repeat(values.codes, lengths), dtype=values.dtype)
        numbers = pd.concat([numbers_of(part) for part in parts], ignore_index=True)
        return pd.concat([pd.DataFrame(columns), numbers], axis=1)

    def provenance(self) -> dict[str, str]:
        """What the tasks were made with: versions, commit, device, and digest of the data, a comma between variants."""
        origins = {name: None for part in self.parts for name in ("data_sha256", *part.origin)}
        return {c: ", ".join(sorted({str(v) for v in self.tasks[c] if pd.notna(v)})) for c in origins}

    def gram(self, model: str | None = None, **keys: str) -> EquivarianceGram:
        """The Gram matrices of one task.

        Args:
            model: its name; None where only one is left.
            keys: other columns that tell tasks apart, see :data:`KEYS`.

        Raises:
            InputError: more than one task is left (says in what they differ), none, or it failed.
        """
        given = {**keys, **({} if model is None else {"model": model})}
        return gram_of(self.select(**given)._single())

    def matrix_per_model(self) -> dict[str, EquivarianceGram]:
        """The Gram matrices of each model that didn't fail, of one task each.

        Raises:
            InputError: a model has more than one task.
        """
        return {name: gram_of(part) for name, part in self._per_model().items()}

    def lee(
        self, generators: AnyGenerator | Sequence[AnyGenerator] | None = None, *, relative: bool = False
    ) -> pd.DataFrame:
        """The local equivariance error of every task: the keys, `generator`, `lee`, `stderr`, `n` and `unit`.

        Args:
            generators: names or mixtures; None for all named ones in the span of what was measured.
            relative: divide by the squared norm of the output, image by image: `E[‖L_X f‖² / ‖f‖²]`.

        Raises:
            InputError: a generator is not in the span.
        """
        rows = []
        for part in self._fine:
            gram = gram_of(part)
            for generator in generators_of(generators, gram):
                absolute = gram.lee(generator)
                e = Estimate.of(torch.from_numpy(values_of(gram, generator, part, relative)))
                row = {"generator": absolute.name, "lee": e.value, "stderr": e.stderr, "n": e.n, "unit": absolute.unit}
                rows.append({**keys_of(part), **row})
        return pd.DataFrame(rows)

    def scores(self) -> pd.DataFrame:
        """Means of every task over its images: the keys, `n`, and for each of :data:`SCORES` the value and its `_stderr`."""
        rows = []
        for part in self._fine:
            numbers, row = numbers_of(part), {**keys_of(part), "n": len(part.rows)}
            for name, column in SCORES.items():
                values = numbers[column].astype("float64")
                values = 1 - values if name == "error" else values
                n = int(values.notna().sum())
                row[name] = values.mean()
                row[f"{name}_stderr"] = values.std(ddof=1) / n**0.5 if n else np.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def figures(self, measure: str) -> pd.DataFrame:
        """What a measure says of whole sets, such as `accuracy` or `distance`: the keys and its numbers, a row per task.

        Args:
            measure: its name.

        Raises:
            InputError: no task has this measure.
        """
        fine = [part for part in self.parts if not part.failed]
        rows = [{**keys_of(p), **p.described["figures"][measure]} for p in fine if measure in p.described["figures"]]
        if not rows:
            known = {name for part in fine for name in part.described["figures"]}
            raise InputError(f"No task has figures of {measure!r}.{nearest(measure, known)}")
        return pd.DataFrame(rows)

    def per_image(self, generator: AnyGenerator | Sequence[AnyGenerator], *, relative: bool = False) -> pd.DataFrame:
        """`‖L_X f(x)‖² / dim` of each image and model: a row per image that all models have, a column per model.

        Args:
            generator: a name, or a generator in the span of what was measured; of several the sum.
            relative: divide by the squared norm of the output, image by image.

        Raises:
            InputError: a model has more than one task, or the tasks are of different images.
        """
        values: dict[str, Any] = {}
        for name, part in self._same_images().items():
            gram = gram_of(part)
            values[name] = sum(values_of(gram, g, part, relative) for g in generators_of(generator, gram))
        return self._aligned(values)

    def per_image_of(self, column: str) -> pd.DataFrame:
        """A column of :attr:`frame`, such as `correct` or `eq_t`, in the form of :meth:`per_image`.

        Args:
            column: its name.

        Raises:
            InputError: an unknown column, or as for :meth:`per_image`.
        """
        numbers = {name: numbers_of(part) for name, part in self._same_images().items()}
        for frame in numbers.values():
            if column not in frame:
                raise InputError(f"There is no column {column!r}.{nearest(column, map(str, frame.columns))}")
        return self._aligned({name: frame[column].astype("float64").to_numpy() for name, frame in numbers.items()})

    @property
    def _fine(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if not part.failed and len(part.rows))

    @property
    def _empty(self) -> str:
        if len(self.errors) == len(self.parts):
            return "All of these tasks failed; `errors` says why."
        return "None of these tasks has rows for single images; `figures(measure)` reads what they say of whole sets."

    def _single(self) -> Part:
        if len(self.parts) != 1:
            raise InputError(f"{len(self.parts)} tasks are left; select one by {_differing(self.parts)}.")
        if self.parts[0].failed:
            raise InputError(f"{self.parts[0].described['model']} failed: {self.parts[0].described['error']}")
        return self.parts[0]

    def _per_model(self) -> dict[str, Part]:
        found: dict[str, list[Part]] = {}
        for part in self._fine:
            found.setdefault(part.described["model"], []).append(part)
        for name, parts in found.items():
            if len(parts) > 1:
                raise InputError(f"{name} has {len(parts)} tasks; select one by {_differing(parts)}.")
        return {name: parts[0] for name, parts in found.items()}

    def _same_images(self) -> dict[str, Part]:
        parts = self._per_model()
        if not parts:
            raise InputError(self._empty)
        for key in ("dataset", "split", "seed", "size", "data_sha256"):
            values = {str(part.described[key]) for part in parts.values()}
            if len(values) > 1:
                raise InputError(
                    f"Only the same images can be paired; these tasks differ in {key}: {', '.join(sorted(values))}."
                )
        return parts

    def _aligned(self, values: dict[str, Any]) -> pd.DataFrame:
        shortest = min(map(len, values.values()))  # a larger sample begins with every smaller one
        index = pd.RangeIndex(shortest, name="image")
        return pd.DataFrame({name: column[:shortest] for name, column in values.items()}, index=index)


def _matches(key: str, one: str, wanted: str) -> bool:
    if key != "model":
        return one == wanted
    return any(one == pattern or fnmatchcase(one, pattern) for pattern in (wanted, f"zoo/{wanted}"))


def _differing(parts: Sequence[Part]) -> str:
    """The keys in which tasks differ, with their values."""
    found = {key: sorted({str(part.described[key]) for part in parts}) for key in KEYS}
    shown = {key: ", ".join(values[:4]) + ", …" * (len(values) > 4) for key, values in found.items() if len(values) > 1}
    return "; ".join(f"{key} ({values})" for key, values in shown.items()) or "another measurement"
