"""A checkpoint that is not there yet: its tensors' names, shapes and dtype from `config.json` alone, for plans."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from lf_export.checkpoint.header import DTYPE_BYTES
from lf_export.checkpoint.index import INDEX_NAME, SINGLE_NAME, Checkpoint, TensorInfo, contained, read_object
from lf_export.errors import InputError
from lf_export.walk.families import Family, family_of, num_layers

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# More than any model has: a config that asks for more is a mistake, and would take the plan minutes.
_MOST = {"num_hidden_layers": 1000, "hidden_size": 1 << 17, "intermediate_size": 1 << 19, "vocab_size": 1 << 22}
_PICKLED = (".bin", ".pt", ".pth", ".safetensors")


def is_config_alone(folder: Path) -> bool:
    """Whether a folder has a config.json and no weights of any kind."""
    if not (folder / "config.json").is_file() or (folder / SINGLE_NAME).is_symlink():
        return False
    return not any(path.name.endswith((*_PICKLED, INDEX_NAME)) for path in folder.iterdir())


def planned_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint that `folder` will be, with the tensors that Transformers gives such a config.

    Nothing can be read from it: `planned` is set, and its one shard is not there.

    Raises:
        InputError: config.json is no model's that the walk knows, or is of a quantized one.
    """
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - heavy

    path = contained(folder, "config.json")
    config = read_object(path)
    if "quantization_config" in config:
        raise InputError(f"{folder}: config.json is of a quantized model, whose tensors only its weights tell")
    family = family_of(config)
    problems = [
        f"{path}: {key} is {config[key]!r}, expected a number from 1 to {most:,}"
        for key, most in _MOST.items()
        if key in config and not (isinstance(config[key], int) and 0 < config[key] <= most)
    ]
    if problems:
        raise InputError.of(problems)
    num_layers(config)
    try:
        typed = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(typed, trust_remote_code=False)
    except Exception as error:  # what a config can be wrong in, Transformers says in errors of every class
        raise InputError(f"{path}: Transformers makes no model of it: {error}") from error
    dtype = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch."))
    if dtype is None:
        raise InputError(f"{path}: the dtype is none of {', '.join(_DTYPES)}")
    tied = bool(getattr(typed, "tie_word_embeddings", True))
    shapes = dict(_shapes(model, family))
    if tied:
        shapes.pop("lm_head.weight", None)
    file = folder / SINGLE_NAME
    tensors, start = {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * DTYPE_BYTES[dtype]
        tensors[name] = TensorInfo(name, dtype, shape, file, start, size)
        start += size
    return Checkpoint(folder, tensors, {**config, "tie_word_embeddings": tied}, (file,), planned=True)


def _shapes(model: Any, family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters by the names that checkpoints give them: each expert's linears by themselves."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)
        if family.experts is None or ".experts." not in name or len(shape) != 3:
            yield _own_name(name, family), shape
            continue
        prefix, _, stacked = name.partition(".experts.")
        layer = prefix.removesuffix(f".{prefix.rpartition('.')[2]}")
        yield from _experts(f"{layer}.{family.experts.block}.experts", stacked, shape, family)


def _own_name(name: str, family: Family) -> str:
    """Transformers calls Mixtral's router block `mlp`; its checkpoints do not."""
    if family.experts is not None and family.experts.block != "mlp":
        return name.replace(".mlp.", f".{family.experts.block}.")
    return name


def _experts(
    prefix: str, stacked: str, shape: tuple[int, ...], family: Family
) -> Iterator[tuple[str, tuple[int, ...]]]:
    names = family.experts
    if names is None:
        raise AssertionError
    count, out, width = shape
    halves: Mapping[str, tuple[int, int]] = (
        {names.gate: (out // 2, width), names.up: (out // 2, width)}
        if "gate_up" in stacked
        else {names.down: (out, width)}
    )
    for number in range(count):
        for part, each in halves.items():
            yield f"{prefix}.{number}.{part}.weight", each
