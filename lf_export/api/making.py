"""`merge`, `calibrate` and `quantize`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lf_export.api.given import StrPath, Texts, one_of, size, texts, thread_count, within
from lf_export.errors import InputError


def merge(
    base: StrPath,
    adapters: StrPath | Sequence[StrPath | tuple[StrPath, float]],
    out: StrPath,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    combine: Literal["in-order", "linear", "cat"] = "in-order",
    dequantize_base: bool = False,
    check_logits: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    wait: bool = False,
) -> dict[str, Any]:
    """Merge LoRA adapters into their base, bit-identical to PEFT; returns the manifest that lies in `out`.

    >>> lf_export.merge("base", "adapter", "merged")["merge"]["changed"]
    >>> lf_export.merge("base", ["adapter", ("another", 0.7)], "merged", dtype="bfloat16")

    Args:
        base: a Hugging Face folder with safetensors.
        adapters: a PEFT folder, or several in order, each with a weight where it is a pair.
        out: the folder to make.
        dtype: the merged model's; the base's own where not given.
        combine: add each adapter after the other, or make one of them first.
        dequantize_base: merge into what the weights of a quantized base stand for.
        check_logits: compare the merged model's logits with those of base and adapters unmerged.
        overwrite: replace an output that exists.
        threads: to compute with; the cores that this process may use where not given.
        wait: while another run writes the output, instead of an error.

    Raises:
        InputError: an option, a base or an adapter that cannot be merged exactly, or an output that exists.
        StepError: the output cannot be written, or another run writes it.
    """
    from lf_export.checkpoint.lock import waiting
    from lf_export.steps.merge import MergeOptions, merge_model

    one_of("dtype", dtype, (None, "float32", "float16", "bfloat16"))
    one_of("combine", combine, ("in-order", "linear", "cat"))
    given = [adapters] if isinstance(adapters, str | os.PathLike) else adapters
    weighted = [each if isinstance(each, tuple) else (each, 1.0) for each in given]
    if not weighted:
        raise InputError("adapters: there is none, at least one was expected")
    options = MergeOptions(
        base=Path(base),
        adapters=tuple(Path(path) for path, _ in weighted),
        out=Path(out),
        dtype=dtype,
        overwrite=overwrite,
        threads=thread_count(threads),
        weights=tuple(weight for _, weight in weighted),
        combine=combine,
        dequantize_base=dequantize_base,
        check_logits=check_logits,
    )
    with waiting(wait=wait):
        return merge_model(options)


def calibrate(
    model: StrPath,
    *,
    calls: Texts = (),
    chat: Texts = (),
    dialect: str = "chat-template",
    call_share: float = 0.5,
    num_samples: int = 128,
    max_seq_length: int = 2048,
    allow_dropped: float = 0.0,
    seed: int = 0,
    out: StrPath | None = None,
    overwrite: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Render, mix and audit calibration data for `model`; returns the audit.

    >>> lf_export.calibrate("merged", calls="ours.jsonl", chat="shipped:chat.jsonl", out="calibration")["digest"]

    Args:
        model: the merged model, whose tokenizer counts.
        calls: files of function-call conversations; those that ship where none is given.
        chat: files of conversations without functions, likewise.
        dialect: `chat-template` or `llama-functions`, as the model was trained.
        call_share: the share of tokens from function-call conversations.
        num_samples: conversations at most.
        max_seq_length: in tokens; longer conversations are dropped by name, never cut.
        allow_dropped: the share of call tokens that may be lost with dropped conversations.
        seed: of the selection.
        out: the folder to write the calibration set to, for `quantize`; nothing is written where not given.
        overwrite: replace an output that exists.
        wait: while another run writes the output, instead of an error.

    Raises:
        InputError: data that cannot be used, or call tokens that would be lost.
    """
    from lf_export.checkpoint.lock import waiting
    from lf_export.steps.calibrate import CalibrateOptions, audit_text, calibrate_model

    within("call_share", call_share, 0, 1)
    within("num_samples", num_samples, 1)
    within("max_seq_length", max_seq_length, 16)
    within("allow_dropped", allow_dropped, 0, 1)
    options = CalibrateOptions(
        model=Path(model),
        calls=texts(calls),
        chat=texts(chat),
        dialect=dialect,
        call_share=call_share,
        num_samples=num_samples,
        max_seq_length=max_seq_length,
        seed=seed,
        allow_dropped=allow_dropped,
        out=None if out is None else Path(out),
        overwrite=overwrite,
    )
    with waiting(wait=wait):
        return audit_text(calibrate_model(options))[1]


def quantize(
    model: StrPath,
    formats: Texts,
    out: StrPath,
    *,
    calibration: StrPath | None = None,
    dialect: str = "chat-template",
    num_samples: int = 128,
    group_size: int | Literal["auto"] = "auto",
    sym: bool = True,
    desc_act: bool = False,
    gguf_method: Literal["gptq", "imatrix", "rtn"] = "gptq",
    tensor_types: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    split_max_size: str | None = None,
    imatrix: StrPath | None = None,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    wait: bool = False,
) -> dict[str, Any]:
    """Quantize `model` to every format in one pass; returns `{"artifacts": {folder: manifest}}`.

    >>> made = lf_export.quantize("merged", ["gptq", "gguf:Q4_K_M"], "out", calibration="calibration")
    >>> list(made["artifacts"])
    ['out/gptq-4bit', 'out/gguf-q4_k_m']

    Args:
        model: the merged model's folder.
        formats: `gptq`, `gptq:8`, `gptq:4.25`, `awq`, `gguf:Q4_K_M`, `onnx:int4`, …; one, or several.
        out: the artifact's folder, or that of the artifacts' folders where there are several formats.
        calibration: a folder that `calibrate` wrote; shipped data where not given.
        dialect: of the shipped data.
        num_samples: shipped conversations at most.
        group_size: gptq, awq: columns that share a scale, -1 or `auto`.
        sym: gptq: a symmetric grid.
        desc_act: gptq: groups in activation order.
        gguf_method: gguf: errors fed back, the importance matrix alone, or no calibration.
        tensor_types: gguf: types by a glob over tensors' names; the last that matches wins.
        split_max_size: gguf: split files whose tensors take more, such as `2G`.
        imatrix: gguf: an importance matrix; that of the calibration pass where not given.
        seed: of the selection of shipped data.
        overwrite: replace outputs that exist.
        threads: to compute with; the cores that this process may use where not given.
        memory: what the step may take in all, in bytes or such as `4GB`.
        wait: while another run writes an output, instead of an error.

    Raises:
        InputError: a model, options or data that cannot be used, or too little memory.
        MissingError: a format's package is not installed.
        StepError: an artifact did not prove itself, cannot be written, or does not fit the disk.
    """
    from lf_export.checkpoint.lock import waiting
    from lf_export.steps.quantize import quantize_model, targets_from_names

    within("num_samples", num_samples, 1)
    one_of("gguf_method", gguf_method, ("gptq", "imatrix", "rtn"))
    gguf: dict[str, Any] = {"method": gguf_method}
    typed = list(tensor_types.items() if isinstance(tensor_types, Mapping) else tensor_types)
    if typed:
        gguf["overrides"] = [[pattern, {"type": kind.upper()}] for pattern, kind in typed]
    if split_max_size is not None:
        size("split_max_size", split_max_size)
        gguf["split_max_size"] = split_max_size
    if imatrix is not None:
        gguf["imatrix"] = os.fspath(imatrix)
    names = texts(formats)
    if not names:
        raise InputError("formats: there is none, at least one such as gptq was expected")
    targets = targets_from_names(names, Path(out), group_size=group_size, sym=sym, desc_act=desc_act, gguf=gguf)
    with waiting(wait=wait):
        return quantize_model(
            Path(model),
            targets,
            calibration=None if calibration is None else Path(calibration),
            dialect=dialect,
            num_samples=num_samples,
            seed=seed,
            overwrite=overwrite,
            threads=thread_count(threads),
            memory=size("memory", memory),
        )
