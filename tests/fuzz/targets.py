"""Fuzz targets: each takes any bytes as a file that a stranger wrote; nothing but an ExportError may leave it."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lf_export.checkpoint.adapter import open_adapter
from lf_export.checkpoint.header import read_header
from lf_export.checkpoint.index import INDEX_NAME, open_checkpoint
from lf_export.errors import ExportError
from lf_export.recipe.load import load_recipe

Target = Callable[[bytes], None]
EMPTY = b"\2\0\0\0\0\0\0\0{}"
"""A safetensors file without tensors."""


def header(data: bytes) -> None:
    """`data` as a safetensors file."""
    with _folder({"model.safetensors": data}) as folder:
        read_header(folder / "model.safetensors")


def index(data: bytes) -> None:
    """`data` as the index of a sharded checkpoint."""
    with _folder({"config.json": b"{}", INDEX_NAME: data, "a.safetensors": EMPTY}) as folder:
        open_checkpoint(folder)


def adapter_config(data: bytes) -> None:
    """`data` as an adapter's config."""
    with _folder({"adapter_config.json": data, "adapter_model.safetensors": EMPTY}) as folder:
        open_adapter(folder)


def recipe(data: bytes) -> None:
    """`data` as a recipe."""
    with _folder({"recipe.yaml": data}) as folder:
        load_recipe(folder / "recipe.yaml")


TARGETS: dict[str, Target] = {each.__name__: each for each in (header, index, adapter_config, recipe)}


@contextlib.contextmanager
def _folder(files: dict[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz") as name, contextlib.suppress(ExportError):
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)
