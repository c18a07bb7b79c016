"""The table of a sweep as Parquet: a row per task and image, with where each task's numbers come from in the metadata.

A file holds any number of tasks: one while a sweep runs, all of them in the end. What is the same for all rows of a task,
such as the model's name, lies in the metadata and is written out as columns as well, so that any reader of Parquet can
use the file.

The Gram matrix of an image is stored as its upper triangle, column by column (LAPACK's packed form): `gram_0` is G_00,
then G_01, G_11, then G_02, G_12, G_22, and so on, so that the columns of a shorter basis are the first ones of a longer.

Floating-point numbers are rounded to 11 significant bits (relative error up to 5e-4 in a number of one image, 1e-5 in a mean over
them, far below the error of any measurement), and each byte of theirs is stored apart from the others: the file is half as
large as with all 24 bits. A digest of all other bytes lies in the metadata, so that any bit that changes is found, and one of
each task, so that the others can still be used. What a measure says of the whole set, `figures`, lies in the metadata as it is.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lee.errors import InputError
from lee.paths import atomic_path

#: What a table looks like. Raised whenever columns or the meaning of a number change.
SCHEMA = 2
#: Columns that are the same for all rows of a task, in the order in which tasks are sorted.
SHARED = ("model", "weights", "measurement", "dataset", "split", "output", "kernel", "boundary", "family")
#: Columns that differ from image to image, beside `gram_0`, `gram_1`, ...
NUMBERS = {
    "image": pa.int32(), "label": pa.int16(), "prediction": pa.int16(), "correct": pa.bool_(),
    "confidence": pa.float32(), "loss": pa.float32(), "output_square": pa.float32(), "consistency": pa.float32(),
    "eq_t": pa.float32(), "eq_t_frac": pa.float32(), "eq_r": pa.float32(), "speed": pa.float32(), "foreign": pa.float32(),
    "error": pa.string(),
}  # fmt: skip
#: What was checked of a task's derivatives (:mod:`lee.measure.verification`); only in tables in which a task has it.
CHECKED = {
    "verified": pa.bool_(),
    "verified_mode": pa.string(),
    "verified_deviation": pa.float32(),
    "verified_precision": pa.string(),
}
_METADATA = b"lee.sweep"
#: The digest of a file's bytes, in which it stands as zeros itself.
_SEAL = re.compile(rb'(?<="sha256":")[0-9a-f]{64}(?=")')
_OPEN = b"0" * 64


class DamagedTable(InputError):
    """A table whose bytes are not those that were written."""


@dataclass(frozen=True)
class Part:
    """The rows of one task.

    It is described by what the task was, the basis of its Gram matrices, what was checked of them, the figures of its measures that
    are of the whole set, and the error if it failed. Its rows have the columns of :data:`NUMBERS`, those of the Gram
    matrix, and `absolute_0`, ... and `deviation` where measured.
    """

    key: str  # the task's name
    described: dict[str, Any]
    origin: dict[str, Any]  # versions, commit and device
    rows: pa.Table

    @classmethod
    def of(cls, key: str, described: dict[str, Any], origin: dict[str, Any], columns: Mapping[str, Any]) -> "Part":
        """Rows from arrays of one length; columns of :data:`NUMBERS` that are not given hold nulls."""
        length = len(next(iter(columns.values())))
        kinds = {name: NUMBERS.get(name, pa.float32()) for name in _sorted([*NUMBERS, *columns])}
        arrays = {
            name: _array(columns[name], kind) if name in columns else pa.nulls(length, kind)
            for name, kind in kinds.items()
        }
        return cls(key, described, origin, pa.table(arrays))

    @property
    def failed(self) -> bool:
        """Whether the task has an error in place of numbers."""
        return self.described["error"] is not None

    @property
    def order(self) -> tuple[str, ...]:
        """Where the task stands in a table."""
        return (*(self.described[name] for name in SHARED), self.key)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that is told of the task, and of its numbers."""
        told = hashlib.sha256(json.dumps([self.key, self.described, self.origin], sort_keys=True).encode())
        for name in self.rows.column_names:
            values = self.rows[name].to_numpy()
            told.update(name.encode())
            told.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
        return told.hexdigest()

    def of_family(self, family: str) -> "Part":
        """The same rows under another name of the family, which is no part of the key."""
        return replace(self, described={**self.described, "family": family})


def rounded(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Float32 numbers of 11 significant bits, the nearest to the given ones."""
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bits = exact.view(np.uint32)
    near = ((bits.astype(np.uint64) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(exact), near, exact)


def _array(values: "np.ndarray[Any, Any]", kind: pa.DataType) -> pa.Array:
    return pa.array(rounded(values) if pa.types.is_floating(kind) else values, type=kind)


def packed(grams: "np.ndarray[Any, Any]") -> dict[str, "np.ndarray[Any, Any]"]:
    """Columns `gram_i` from Gram matrices (n, K, K)."""
    columns, rows = np.tril_indices(grams.shape[-1])  # the upper triangle, column by column
    return {f"gram_{i}": grams[:, a, b] for i, (a, b) in enumerate(zip(rows, columns, strict=True))}


def unpacked(triangles: "np.ndarray[Any, Any]", k: int) -> "np.ndarray[Any, Any]":
    """Gram matrices (n, K, K), float64, from the columns `gram_i` as (n, K (K + 1) / 2)."""
    columns, rows = np.tril_indices(k)
    grams = np.empty((len(triangles), k, k))
    grams[:, rows, columns] = grams[:, columns, rows] = triangles
    return grams


def width(k: int) -> int:
    """How many columns a Gram matrix over K generators takes."""
    return k * (k + 1) // 2


def encode(parts: Iterable[Part]) -> bytes:
    """A Parquet file of these tasks; the same tasks in any order give the same bytes."""
    ordered = sorted(parts, key=lambda part: part.order)
    table = _joined(ordered)
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    words = [field.name for field in table.schema if field.name not in floats]
    stream = io.BytesIO()
    with pq.ParquetWriter(
        stream, table.schema, compression="zstd", compression_level=9, use_dictionary=words, use_byte_stream_split=floats,
        store_schema=False,  # Arrow's own copy, which would hold the metadata once more
    ) as writer:  # fmt: skip
        writer.write_table(table, row_group_size=2**20)
        writer.add_key_value_metadata({_METADATA: _metadata(ordered)})
    content = stream.getvalue()
    return _SEAL.sub(hashlib.sha256(content).hexdigest().encode(), content, count=1)


def _is_whole(content: bytes) -> bool | None:
    """Whether the bytes are those that were written; None if they carry no digest."""
    if (found := _SEAL.search(content)) is None:
        return None
    return hashlib.sha256(_SEAL.sub(_OPEN, content, count=1)).hexdigest().encode() == found[0]


def write(content: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{path} can't be written: {error.strerror}. Nothing that was finished before is lost; make room or choose "
            "another place, and start the same sweep again."
        ) from error


def read(path: Path) -> dict[str, Part]:
    """The tasks of a file by their keys, in the file's order; what isn't as it was written is a :class:`DamagedTable`."""
    if not path.is_file():
        raise InputError(f"There is no table {path}. Make it with `lee sweep`.")
    content = path.read_bytes()
    whole, damaged = _is_whole(content), DamagedTable(f"{path} is damaged: its digest is not that of its content.")
    if whole is False:
        raise damaged
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} can't be read as Parquet: it is no table or was cut short ({' '.join(str(error).split())[:200].rstrip('.')}). "
            "It was left as it is: bring it back from a copy, or move it away and make it again with `lee sweep`."
        ) from error
    told = (table.schema.metadata or {}).get(_METADATA)
    if told is None:
        raise InputError(f"{path} is no table of `lee sweep`: it doesn't say where its rows come from.")
    try:
        found = json.loads(told)
    except ValueError:
        raise damaged from None
    if found.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has schema {found.get('schema')}, and this version of lee reads and writes schema {SCHEMA}. "
            "Move the file away and make it again with `lee sweep`, or use the version of lee that it was made with."
        )
    if not whole:
        raise damaged
    return {key: part for key, (part, _) in _parted(table, found).items()}


def salvaged(path: Path) -> dict[str, Part]:
    """The tasks of a damaged file that are as they were written."""
    try:
        table = pq.read_table(path)
        parts = _parted(table, json.loads(table.schema.metadata[_METADATA]))
        return {key: part for key, (part, digest) in parts.items() if part.digest == digest}
    except Exception:  # whatever the readers make of it
        return {}


def _parted(table: pa.Table, found: dict[str, Any]) -> dict[str, tuple[Part, str]]:
    """The tasks, each with the digest that was written of it."""
    parts, start = {}, 0
    for key, entry in found["tasks"].items():
        described = {name: value for name, value in entry.items() if name not in ("rows", "origin", "digest")}
        rows = table.slice(start, entry["rows"]).select([*NUMBERS, *_further(described)])
        origin = found["origins"][entry["origin"]]
        parts[key] = Part(key, described, origin, rows.replace_schema_metadata(None)), entry["digest"]
        start += entry["rows"]
    return parts


def _metadata(parts: Sequence[Part]) -> bytes:
    """What each task was, and the distinct origins, each once."""
    origins: list[dict[str, Any]] = []
    tasks = {}
    for part in parts:
        if part.origin not in origins:
            origins.append(part.origin)
        where = {"rows": len(part.rows), "origin": origins.index(part.origin), "digest": part.digest}
        tasks[part.key] = {**part.described, **where}
    told = {"schema": SCHEMA, "sha256": _OPEN.decode(), "tasks": tasks, "origins": origins}
    return json.dumps(told, separators=(",", ":")).encode()


def _joined(parts: Sequence[Part]) -> pa.Table:
    lengths = [len(part.rows) for part in parts]
    columns: dict[str, pa.Array] = {"task": _repeated([part.key for part in parts], lengths)}
    for name in SHARED:
        columns[name] = _repeated([part.described[name] for part in parts], lengths)
    if any("verified" in part.described for part in parts):
        places = pa.array(np.repeat(np.arange(len(parts)), lengths))
        for name, kind in CHECKED.items():
            columns[name] = pa.array([part.described.get(name) for part in parts], kind).take(places)
    numbers = pa.concat_tables([part.rows for part in parts], promote_options="default").combine_chunks()
    return pa.table({**columns, **{name: numbers[name] for name in _sorted(numbers.column_names)}})


def _further(described: Mapping[str, Any]) -> list[str]:
    """The columns of a task beside :data:`NUMBERS`."""
    k, measures = len(described["basis"]), described.get("measures", ())  # no basis if the task failed
    found = [f"absolute_{i}" for i in range(k) if "absolute" in measures]
    found += ["deviation"] if k and "deviation" in measures else []
    return found + [f"gram_{i}" for i in range(width(k))]


def _sorted(names: Iterable[str]) -> list[str]:
    further = set(names) - set(NUMBERS)
    return [*NUMBERS, *sorted(further, key=lambda name: (name.rstrip("0123456789"), len(name), name))]


def _repeated(values: Sequence[str], lengths: Sequence[int]) -> pa.DictionaryArray:
    """One value for all rows of each task."""
    distinct = sorted(set(values))
    codes = [distinct.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(np.repeat(codes, lengths), pa.int32()), pa.array(distinct))
