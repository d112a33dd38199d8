"""What hypothesis feeds the fuzz targets: documents of nearly the right shape."""

import json
import struct
from typing import Any

from hypothesis import strategies as st

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2**63, -1, 10**400, "\ud800", "../x", "/etc/passwd", "x\0", "(a+)+$", "2020-99-99", "!!bool x"])
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner), max_leaves=8
)


def _object(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=4), _VALUES, max_size=8)


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


_TENSOR = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "F8_E4M3", "I3"]) | _VALUES},
    optional={
        "shape": st.lists(st.integers(0, 2**70), max_size=70) | _VALUES,
        "data_offsets": st.tuples(st.integers(0, 9), st.integers(0, 9)) | _VALUES,
    },
)
_HEADERS = st.dictionaries(st.sampled_from(["w", "__metadata__", "\ud800"]), _TENSOR | _VALUES).map(_bytes)
_LORA_NAMES = (
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "use_rslora",
    "use_dora",
    "bias",
    "fan_in_fan_out",
    "trainable_token_indices",
)
_LORA = st.fixed_dictionaries(
    {"peft_type": st.just("LORA"), "r": st.just(8) | _VALUES, "lora_alpha": st.just(16) | _VALUES},
    optional=dict.fromkeys(_LORA_NAMES, _VALUES),
)
_FILES = st.sampled_from(["a.safetensors", "../a.safetensors", "a.bin", "/a", ".", "\ud800", "x" * 300]) | _VALUES
SHAPES: dict[str, st.SearchStrategy[bytes]] = {
    "header": st.tuples(_HEADERS, st.binary(max_size=8)).map(
        lambda pair: struct.pack("<Q", len(pair[0])) + pair[0] + pair[1]
    )
    | st.binary(max_size=64),
    "index": (
        st.fixed_dictionaries({"weight_map": st.dictionaries(st.text(max_size=4), _FILES) | _VALUES}) | _VALUES
    ).map(_bytes),
    "adapter_config": (_LORA | _object("peft_type", "r")).map(_bytes),
    "recipe": _object("version", "base", "adapters", "calibration", "quantize", "bench", "gate", "output").map(_bytes)
    | st.text(alphabet="ab:-[]{}!&*? \n0", max_size=60).map(str.encode),
}
