"""Parquet files as Hugging Face's `datasets` reads them: a row a picture, with its file, objects and prompts in it.

    data/train-00000-of-00002.parquet   shards of bounded size; validation and test beside them, where there are any
    README.md                           the dataset card: which files are which split, and what the columns hold

The files' own metadata says which columns are pictures and which are labels, so `load_dataset` decodes them. Lists of
one picture run in parallel: the n-th mask is of the n-th object id.

Source: the documentation of `datasets` on repository structure, and its features' JSON.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from backend.datasets.dataset import Dataset, DatasetImage, Instance, Json, compact_json
from backend.datasets.formats.label_maps import one_line
from backend.datasets.formats.options import ExportOptions
from ris_core.errors import DatasetError

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
# What is kept in memory until it is written, and what readers fetch at once.
_ROW_GROUP_BYTES = 32 << 20
# What `datasets` itself takes.
_SHARD_BYTES = 500 << 20

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_Features = dict[str, tuple[pa.DataType, Json, str]]


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """Nothing is left out. Raises DatasetError if two categories share a name, by which `datasets` knows them."""
    names = [category.name for category in dataset.categories]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(
            f"Two categories are named {twice[0]!r}, and Parquet's labels know them by name. Rename one."
        )
    schema, labels = _schema(names), {category.number: index for index, category in enumerate(dataset.categories)}
    (out / "data").mkdir()
    with ExitStack() as stack:
        shards = {split: stack.enter_context(_Shards(out / "data", name, schema)) for split, name in _SPLITS.items()}
        for image in dataset.images():
            shards[image.split].add(_row(image, labels, options))
        filled = [_SPLITS[split] for split, written in shards.items() if written.finish()]
    (out / "README.md").write_text(_card(dataset, filled), encoding="utf-8")
    return {}


def _features(names: list[str]) -> _Features:
    """Each column's Arrow type, its feature in the JSON of `datasets`, and what it holds."""
    number, text = _value("int64", pa.int64()), _value("string", pa.string())
    picture = _PICTURE, {"_type": "Image"}
    return {
        "image": (*picture, "the picture's file; null if it was left out"),
        "image_id": (*number, "the task's number"),
        "file_name": (*text, "unique in the dataset"),
        "width": (*number, "in pixels"),
        "height": (*number, "in pixels"),
        "sha256": (*text, "of the picture's file"),
        "object_ids": (*_list(number), "the objects, in the order in which they were drawn"),
        "categories": (*_list((pa.int64(), {"names": names, "_type": "ClassLabel"})), "their labels, from 0"),
        "category_ids": (*_list(number), "the labels' numbers, which stay the same from export to export"),
        "bboxes": (*_list(_list(_value("float64", pa.float64()))), "their boxes: x, y, width, height in pixels"),
        "areas": (*_list(number), "how many pixels they have"),
        "masks": (*_list(picture), "their masks, exact: black and white, of the picture's size"),
        "provenance": (*_list(text), "JSON: where they come from"),
        "prompt_ids": (*_list(number), "the prompts"),
        "prompts": (*_list(text), "their sentences: lower case, no punctuation around them"),
        "prompts_raw": (*_list(text), "as they were typed"),
        "prompt_objects": (
            *_list(_list(number)),
            "the ids of the objects that they mean together; none: it isn't there",
        ),
        "prompt_provenance": (*_list(text), "JSON: what became of the prediction, where that is known"),
    }


def _value(name: str, kind: pa.DataType) -> tuple[pa.DataType, Json]:
    return kind, {"dtype": name, "_type": "Value"}


def _list(of: tuple[pa.DataType, Json]) -> tuple[pa.DataType, Json]:
    # "Sequence" is what all versions read.
    return pa.list_(of[0]), {"feature": of[1], "_type": "Sequence"}


def _schema(names: list[str]) -> pa.Schema:
    columns = _features(names)
    features = {name: feature for name, (_, feature, _) in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, kind) for name, (kind, _, _) in columns.items()], metadata)


def _row(image: DatasetImage, labels: Mapping[int, int], options: ExportOptions) -> Json:
    is_left = options.images == "leave"
    objects, refs = image.instances, image.refs
    return {
        "image": None if is_left else {"bytes": image.path.read_bytes(), "path": image.file_name},
        "image_id": image.number,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "sha256": image.digest,
        "object_ids": [instance.number for instance in objects],
        "categories": [labels[instance.category] for instance in objects],
        "category_ids": [instance.category for instance in objects],
        "bboxes": [instance.bbox for instance in objects],
        "areas": [instance.area for instance in objects],
        "masks": [{"bytes": _png(instance), "path": f"{instance.number}.png"} for instance in objects],
        "provenance": [_text(instance.provenance) for instance in objects],
        "prompt_ids": [ref.number for ref in refs],
        "prompts": [ref.sentence for ref in refs],
        "prompts_raw": [ref.raw for ref in refs],
        "prompt_objects": [list(ref.instances) for ref in refs],
        "prompt_provenance": [_text(ref.told) for ref in refs],
    }


def _png(instance: Instance) -> bytes:
    """A mask as a PNG of one bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(instance.mask()).save(buffer, "PNG")
    return buffer.getvalue()


def _text(document: Mapping[str, Any]) -> str:
    return compact_json(dict(document)).decode()


class _Shards:
    """The files of a split, written a group of rows at a time. Their number, which is in their names, comes last."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._rows: list[Json] = []
        self._waiting = self._written = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *error: object) -> None:
        self._end_shard()

    def add(self, row: Json) -> None:
        """Append a row, and write what is waiting if that is enough."""
        self._rows.append(row)
        self._waiting += sum(len(picture["bytes"]) for picture in (row["image"], *row["masks"]) if picture)
        if self._waiting >= _ROW_GROUP_BYTES:
            self._write_group()

    def finish(self) -> int:
        """Write the rest and give the files their names. Returns how many there are."""
        self._write_group()
        self._end_shard()
        for number, path in enumerate(self._paths):
            path.rename(self._folder / f"{self._split}-{number:05}-of-{len(self._paths):05}.parquet")
        return len(self._paths)

    def _write_group(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05}.parquet")
            self._writer = pq.ParquetWriter(self._paths[-1], self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema), row_group_size=len(self._rows))
        self._written += self._waiting
        self._rows, self._waiting = [], 0
        if self._written >= _SHARD_BYTES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._written = None, 0


def _card(dataset: Dataset, splits: list[str]) -> str:
    return "\n".join([*_front_matter(splits), f"# {one_line(dataset.description)}", "", *_columns(), ""])


def _front_matter(splits: list[str]) -> Iterator[str]:
    yield from (
        "---",
        "task_categories:",
        "- image-segmentation",
        "configs:",
        "- config_name: default",
        "  data_files:",
    )
    for split in splits:
        yield from (f"  - split: {split}", f"    path: data/{split}-*")
    yield from ("---", "")


def _columns() -> Iterator[str]:
    yield from ("| column | what it holds |", "|---|---|")
    for name, (_, _, says) in _features([]).items():
        yield f"| `{name}` | {says} |"
