import gguf
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lf_export.quant.ggml import TYPES
from lf_export.quant.ggml_blocks import LAYOUTS, decode, with_codes

NAMES = st.sampled_from(sorted(LAYOUTS))
SEEDS = st.integers(0, 2**31)


def any_bytes(name: str, rows: int, blocks: int, seed: int) -> np.ndarray:
    kind = TYPES[name]
    return np.random.default_rng(seed).integers(0, 256, (rows, blocks * kind.nbytes), dtype=np.uint8)


@given(NAMES, st.integers(1, 5), st.integers(1, 4), SEEDS)
@settings(deadline=None)
def test_rows_with_their_own_codes_are_the_same_bytes(name: str, rows: int, blocks: int, seed: int) -> None:
    data = any_bytes(name, rows, blocks, seed)
    assert np.array_equal(with_codes(data, TYPES[name], decode(data, TYPES[name]).codes), data)


@given(NAMES, st.integers(1, 5), st.integers(1, 4), SEEDS)
@settings(deadline=None)
def test_other_codes_are_read_back_and_leave_the_scales_alone(name: str, rows: int, blocks: int, seed: int) -> None:
    data, kind = any_bytes(name, rows, blocks, seed), TYPES[name]
    shape = (rows, blocks * kind.block)
    codes = np.random.default_rng(seed + 1).integers(0, LAYOUTS[name].highest + 1, shape).astype(np.uint8)
    before, after = decode(data, kind), decode(with_codes(data, kind, codes), kind)
    assert np.array_equal(after.codes, codes)
    assert np.array_equal(after.scales, before.scales, equal_nan=True)
    if before.minima is not None and after.minima is not None:
        assert np.array_equal(after.minima, before.minima, equal_nan=True)


@given(NAMES, st.integers(1, 4), SEEDS)
@settings(deadline=None)
def test_any_finite_block_has_the_values_that_the_gguf_package_reads(name: str, blocks: int, seed: int) -> None:
    data = any_bytes(name, 3, blocks, seed)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
        ours = decode(data, TYPES[name]).values()
    finite = np.isfinite(theirs)
    assert np.array_equal(np.isfinite(ours), finite)
    assert np.array_equal(ours[finite], theirs[finite])
