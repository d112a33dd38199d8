"""Datasets of the hub: asked for only where a suite names one."""

import sys
from types import ModuleType
from typing import Any

import pytest
from conversations import call_record, user

from lf_export.calibration.suites import read_suite
from lf_export.errors import InputError, MissingError


def pretend(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    module = ModuleType("datasets")
    module.__dict__["load_dataset"] = load
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_rows_of_a_dataset_are_items_and_missing_columns_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, *, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        return [
            call_record("a") | {"expected": None},
            {"messages": [user("x")], "expected": [], "tools": None, "id": "b"},
        ]

    pretend(monkeypatch, load)
    first, second = read_suite("hf:owner/name").items
    assert (first.id, second.id) == ("a", "b")
    assert second.expected.kind == "prose"
    assert read_suite("hf:owner/name:train").sha256 == read_suite("hf:owner/name").sha256
    assert asked == [("owner/name", "test"), ("owner/name", "train"), ("owner/name", "test")]


def test_a_bad_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda *_, **__: [call_record("a"), {"text": "x"}])
    with pytest.raises(InputError, match="hf:n:2: expected 'messages'"):
        read_suite("hf:n")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError, match="needs datasets") as caught:
        read_suite("hf:owner/name")
    assert caught.value.hint == "pip install datasets"


def test_a_hub_that_cannot_be_reached_is_missing_and_a_split_that_is_not_there_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route\nto host")

    pretend(monkeypatch, offline)
    with pytest.raises(MissingError, match=r"cannot be read: ConnectionError: no route$"):
        read_suite("hf:owner/name")

    def no_split(*_: Any, **__: Any) -> Any:
        raise ValueError('Unknown split "test". Should be one of ["train"].')

    pretend(monkeypatch, no_split)
    with pytest.raises(InputError, match="Unknown split"):
        read_suite("hf:owner/name")
    with pytest.raises(InputError, match="expected hf:NAME"):
        read_suite("hf:")
