"""A manifest seals itself, and says nobody's folders."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lf_export.provenance import manifest, public_name, sealed_text

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(facts=st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_a_manifest_seals_itself_again_to_the_same_text(facts: dict[str, Any]) -> None:
    text = sealed_text(facts)
    assert sealed_text(json.loads(text)) == text


@given(facts=st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=4), key=st.data())
def test_a_manifest_that_says_something_else_has_another_digest(facts: dict[str, Any], key: st.DataObject) -> None:
    facts.pop("digest", None)
    changed = {**facts, "added": key.draw(st.integers())}
    assert json.loads(sealed_text(facts))["digest"] != json.loads(sealed_text(changed))["digest"]


def test_a_manifest_holds_no_key_that_its_reference_does_not_describe() -> None:
    with pytest.raises(ValueError, match=r"kind merged has no verdict, typo"):
        manifest("merged", verdict="PASS", typo=1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf"),
        ("/home/zaphod/models/base", "base"),
        ("/home/zaphod/models/base/", "base"),
        ("~/models/base", "base"),
        ("../../zaphod/base", "base"),
        ("C:\\Users\\zaphod\\base", "base"),
        ("file:///home/zaphod/base", "base"),
        ("\\\\host\\share\\base", "base"),
        ("base", "base"),
        (None, None),
        (3, None),
    ],
)
def test_a_models_name_is_shown_without_its_folders(value: object, shown: str | None) -> None:
    assert public_name(value) == shown
