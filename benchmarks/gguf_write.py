"""Writing Q4_K_M: straight from safetensors against an F16 file that is then quantized, both by llama.cpp's quantizer.

The usual way is two programs: a converter that writes F16, then a quantizer that reads it. Here both ways use the same
library (`ggml_quantize_chunk` of xllamacpp), the same recipe of types and the same threads, and both steps of the usual
way run in one process, so that imports count once: the difference is the F16 file alone. Wall time, CPU seconds (user
and system) and peak memory are those that the system charges to the child process, imports included.

    python benchmarks/gguf_write.py [--model FOLDER] [--type Q4_K_M] [--runs 3] [--threads 2] [--quick] [--json FILE]

Without --model it writes random weights (0.4B bf16 Llama). Run it on an idle machine, and trust ratios more than
seconds.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment, medians_of, show_environment
from random_model import Shape, make

FULL = Shape(layers=24, hidden=1024, inner=2816, heads=16, kv_heads=4, vocabulary=32000)
QUICK = Shape(layers=4, hidden=512, inner=1536, heads=8, kv_heads=4, vocabulary=32000)
ARMS = ("direct", "via-f16")


def random_imatrix(plan: list[Any]) -> Any:
    """An importance for every matrix of a layer: its values do not matter for the time."""
    import numpy as np
    import torch

    from lf_export.formats.gguf_imatrix import Imatrix
    from lf_export.quant.moments import Moments

    generator, imatrix = np.random.default_rng(0), Imatrix()
    for tensor in plan:
        if tensor.layer is not None and len(tensor.shape) == 2:
            values = torch.from_numpy(generator.random(tensor.shape[1], np.float32) + 0.01)
            imatrix.add(tensor.name, Moments(torch.diag(values), values, weight_sum=1.0, count=1))
    return imatrix


def write(model: Path, out: Path, scheme: str, threads: int, *, imatrix: bool) -> None:
    """Our way: one file of `scheme` straight from the checkpoint."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gguf_arch import plan_tensors
    from lf_export.formats.gguf_plan import plan_file
    from lf_export.formats.gguf_tokenizer import read_tokenizer
    from lf_export.formats.gguf_types import SCHEMES
    from lf_export.formats.gguf_writer import GgufFile, GgufIdentity

    checkpoint = open_checkpoint(model)
    plan = plan_tensors(checkpoint)
    tokenizer = read_tokenizer(model, checkpoint.config["vocab_size"])
    planned = plan_file(plan, SCHEMES[scheme], checkpoint, "imatrix" if imatrix else "rtn")
    file = GgufFile(out, planned, SCHEMES[scheme], checkpoint, tokenizer, GgufIdentity("benchmark"), threads)
    file.write(random_imatrix(plan) if imatrix else None)


def requantize(model: Path, source: Path, out: Path, scheme: str, threads: int, *, imatrix: bool) -> None:
    """The second step of the usual way: read the F16 file, quantize it, write the result."""
    from concurrent.futures import ThreadPoolExecutor

    import gguf
    import numpy as np

    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gguf_arch import plan_tensors
    from lf_export.formats.gguf_plan import plan_file
    from lf_export.formats.gguf_types import SCHEMES
    from lf_export.quant.ggml import quantize

    checkpoint = open_checkpoint(model)
    planned = plan_file(plan_tensors(checkpoint), SCHEMES[scheme], checkpoint, "imatrix" if imatrix else "rtn")
    importance = random_imatrix([each.tensor for each in planned]) if imatrix else None
    reader = gguf.GGUFReader(source)
    data = {tensor.name: tensor.data for tensor in reader.tensors}
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = field.types[1] if len(field.types) > 1 else None
            value = SCHEMES[scheme].file_type if name == "general.file_type" else field.contents()
            writer.add_key_value(name, value, field.types[0], sub_type)
    for each in planned:
        raw = gguf.GGMLQuantizationType(each.kind.id)
        writer.add_tensor_info(each.tensor.name, each.tensor.shape, np.dtype(np.float32), each.nbytes, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ThreadPoolExecutor(threads) as pool:
        for each in planned:
            tensor, kind = each.tensor, each.kind
            if not kind.quantized:
                writer.write_tensor_data(np.asarray(data[tensor.name]))
                continue
            weights = importance.importance(tensor.name) if importance and tensor.layer is not None else None
            rows = max(1, (1 << 20) // tensor.shape[1])
            blocks = [data[tensor.name][start : start + rows] for start in range(0, tensor.shape[0], rows)]

            def convert(block: Any, kind: Any = kind, weights: Any = weights) -> Any:
                return quantize(block.astype(np.float32), kind, weights)

            writer.write_tensor_data(np.concatenate(list(pool.map(convert, blocks))))
    writer.close()


def compare(folder: Path, scheme: str) -> None:
    """Say how many tensors both ways give alike; the F16 file rounds what is tiny in bf16."""
    import gguf
    import numpy as np

    files = [gguf.GGUFReader(folder / f"{name}-{scheme}.gguf") for name in ARMS]
    first, second = ({tensor.name: tensor.data for tensor in file.tensors} for file in files)
    same = sum(np.array_equal(first[name], second[name]) for name in first)
    print(f"{same} of {len(first)} tensors bit-identical in both ways")


def child(arguments: list[str], threads: int) -> dict[str, float]:
    """Run one step in a child; wall and CPU seconds, peak memory in MB."""
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--threads", str(threads)]
    return charged(command, environment)


def measure(model: Path, folder: Path, options: argparse.Namespace, imatrix: bool) -> dict[str, Any]:
    """Run both ways in turn; the raw values, medians and ratios."""
    raw: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    common = ["--model", str(model), "--cache", str(folder), "--type", options.type] + ["--imatrix"] * imatrix
    for run in range(options.runs + 1):
        for arm in ARMS:
            (folder / "f16.gguf").unlink(missing_ok=True)
            (folder / f"{arm}-{options.type}.gguf").unlink(missing_ok=True)
            os.sync()  # what the last run left to the kernel must not slow this one
            values = child(["--task", arm, *common], options.threads)
            if run:  # the first run warms the page cache
                raw[arm].append(values)
    child(["--task", "compare", *common], options.threads)
    medians = medians_of(raw)
    ratios = {key: medians["direct"][key] / medians["via-f16"][key] for key in medians["direct"]}
    return {"raw": raw, "medians": medians, "ratios": ratios}


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    for name, part in result["parts"].items():
        print(f"\n| {result['type']}, {name:<10} |  wall s |  CPU s | peak MB |")
        print("|---|---|---|---|")
        for arm in ARMS:
            row = part["medians"][arm]
            print(f"| {arm:<18} | {row['wall_s']:7.2f} | {row['cpu_s']:6.2f} | {row['peak_mb']:7.0f} |")
        ratio = part["ratios"]
        print(f"| {'ratio':<18} | {ratio['wall_s']:6.2f}x | {ratio['cpu_s']:5.2f}x | {ratio['peak_mb']:6.2f}x |")
    print()
    show_environment(result, f", {result['gigabytes']:.2f} GB of weights")
    met = all(part["ratios"]["wall_s"] < 1 for part in result["parts"].values())
    print(f"bound (less wall time than by way of F16): {'met' if met else 'NOT MET'}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks"
    parser.add_argument("--model", type=Path, help="a model folder; random weights without it")
    parser.add_argument("--type", default="Q4_K_M", help="the GGUF type to write")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each way, after one to warm up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="a small model, to see that everything works")
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=default, help="where inputs and results lie")
    parser.add_argument("--task", choices=("make", "make-quick", "compare", *ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--imatrix", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    model, cache, scheme, threads = options.model, options.cache, options.type, options.threads
    tasks = {
        "make": lambda: make(cache, FULL),
        "make-quick": lambda: make(cache, QUICK),
        "direct": lambda: write(model, cache / f"direct-{scheme}.gguf", scheme, threads, imatrix=options.imatrix),
        "via-f16": lambda: (
            write(model, cache / "f16.gguf", "F16", threads, imatrix=False),
            requantize(
                model, cache / "f16.gguf", cache / f"via-f16-{scheme}.gguf", scheme, threads, imatrix=options.imatrix
            ),
        ),
        "compare": lambda: compare(cache, scheme),
    }
    if options.task:
        tasks[options.task]()
        return
    if model is None:
        model = cache / ("gguf-quick" if options.quick else "gguf-0.4b")
        if not (model / "tokenizer.json").exists():  # it is written last
            shutil.rmtree(model, ignore_errors=True)
            print(f"writing random weights to {model}", flush=True)
            child(["--task", "make-quick" if options.quick else "make", "--cache", str(model)], threads)
    folder = cache / "gguf-out"
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "parts": {name: measure(model, folder, options, name == "imatrix") for name in ("plain", "imatrix")},
        "type": scheme,
        "runs": options.runs,
        "threads": threads,
        "gigabytes": sum(path.stat().st_size for path in model.glob("*.safetensors")) / 1e9,
        **environment("lf-export", "gguf", "xllamacpp", "torch"),
    }
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
