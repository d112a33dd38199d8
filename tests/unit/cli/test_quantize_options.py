"""What `lf-export quantize` reads on its command line."""

import click
import pytest
from click.testing import CliRunner

from lf_export.cli.quantize import _override, quantize


def test_a_type_for_tensors_is_a_pattern_and_a_ggml_type() -> None:
    assert _override("*.ffn_down=q8_0") == ("*.ffn_down", "q8_0")
    for text in ("Q8_0", "=Q8_0", "output="):
        with pytest.raises(click.BadParameter, match=r"expected PATTERN=TYPE"):
            _override(text)


def test_a_size_that_is_none_is_refused_before_anything_is_read() -> None:
    ended = CliRunner().invoke(quantize, ["none", "--format", "gguf", "-o", "out", "--split-max-size", "big"])
    assert ended.exit_code == 2
    assert "'big' is no size" in ended.output
