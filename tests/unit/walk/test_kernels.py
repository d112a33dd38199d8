import os

import pytest

from lf_export.walk.kernels import no_kernel_cache

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_inside_onednn_is_told_to_keep_no_kernels_and_afterwards_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CAPACITY, raising=False)
    monkeypatch.delenv("DNNL_PRIMITIVE_CACHE_CAPACITY", raising=False)
    with no_kernel_cache():
        assert os.environ[CAPACITY] == "0"
    assert CAPACITY not in os.environ


def test_an_error_inside_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CAPACITY, raising=False)
    monkeypatch.delenv("DNNL_PRIMITIVE_CACHE_CAPACITY", raising=False)
    with pytest.raises(ValueError, match="inside"), no_kernel_cache():
        raise ValueError("inside")
    assert CAPACITY not in os.environ


@pytest.mark.parametrize("name", [CAPACITY, "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_what_a_person_asked_for_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(CAPACITY, raising=False)
    monkeypatch.setenv(name, "64")
    with no_kernel_cache():
        assert os.environ[name] == "64"
        assert name == CAPACITY or CAPACITY not in os.environ
    assert os.environ[name] == "64"
