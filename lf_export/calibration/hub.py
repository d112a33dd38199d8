"""Rows of a dataset on the Hugging Face hub; nothing here is touched unless a suite is named `hf:…`."""

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from lf_export.calibration.samples import without_nulls
from lf_export.errors import InputError, MissingError

DEFAULT_SPLIT = "test"


def hub_rows(name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of `NAME[:SPLIT]`, `test` where no split is named; no code of the dataset's own is run.

    Raises:
        MissingError: the package `datasets` is not installed, or the dataset or the hub cannot be reached.
        InputError: a name that is none, or no such split.
    """
    dataset, _, split = name.partition(":")
    if not dataset:
        raise InputError(f"hf:{name}: expected hf:NAME or hf:NAME:SPLIT")
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise MissingError(f"hf:{name}: reading a dataset of the hub needs datasets", "pip install datasets") from error
    try:
        rows = datasets.load_dataset(dataset, split=split or DEFAULT_SPLIT)
    except ValueError as error:  # how `datasets` says that there is no such split or configuration
        raise InputError(f"hf:{name}: {_first_line(error)}", "name another split: hf:NAME:SPLIT") from error
    except Exception as error:  # the hub's client raises errors of many libraries
        offline = "HF_HUB_OFFLINE is set; " if os.environ.get("HF_HUB_OFFLINE") else ""
        raise MissingError(
            f"hf:{name}: cannot be read: {type(error).__name__}: {_first_line(error)}",
            f"{offline}give a file instead, or a machine that reaches the hub or has the dataset in its cache",
        ) from error
    for row in rows:
        yield without_nulls(dict(row))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
