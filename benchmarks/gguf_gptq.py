"""GGUF with GPTQ's error feedback against llama.cpp's own rounding with an importance matrix, judged in llama.cpp.

Both files of a type come from the same calibration pass, have the same types and the same scales, and differ in the
codes alone. The damage is the KL divergence from the unquantized model (an F32 file, in llama.cpp too) on call tokens
of conversations that calibration has not seen. Time and memory are those that the system charges to a child process
that writes one type, the pass over the data and imports included.

    python benchmarks/gguf_gptq.py --model FOLDER [--types Q4_0 Q4_K_M …] [--num-samples 32] [--num-heldout 48]
        [--threads 1] [--timed Q4_K_M] [--json FILE]

Weights that sit on a 4-bit grid already flatter every method: take them off it with benchmarks/off_grid.py.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from charged import charged
from gptq import divergence, prepare
from ran import environment, show_data, show_environment

METHODS = ("imatrix", "gptq")
TYPES = (
    "Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M",
    "Q5_0", "Q5_1", "Q5_K_M", "Q6_K", "Q8_0",
)  # fmt: skip


def write(options: argparse.Namespace, types: list[str], method: str, out: Path) -> None:
    """One pass over the data and the files of all types by one method; facts beside them."""
    import torch

    from lf_export.calibration.build import CalibrationSet
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gguf import FORMAT
    from lf_export.walk.stream import walk

    torch.set_num_threads(options.threads)
    data = CalibrationSet.load(options.cache / "calibration")
    checkpoint = open_checkpoint(options.model)
    out.mkdir()
    chosen = FORMAT.options(types=tuple(types), method=method, threads=options.threads, name="m")
    target = FORMAT.open(checkpoint, out, chosen, data.digest)
    walk(checkpoint, data, [target])
    (out / "facts.json").write_text(json.dumps(target.finish()))


def logits(options: argparse.Namespace, file: Path) -> None:
    """Logits of a file in llama.cpp at the held-out call tokens, beside the file."""
    import numpy as np

    from lf_export.runtimes.llamacpp import open_session

    session = open_session(file, threads=options.threads)
    rows = []
    for item in json.loads((options.cache / "heldout.json").read_text()):
        first = item["positions"][0]
        scores = session.score([], [item["ids"]], [first + 1])[0]  # row j predicts token first + 1 + j
        rows.append(scores[[position - first for position in item["positions"]]])
    session.close()
    np.save(options.out, np.concatenate(rows).astype(np.float32))


def child(options: argparse.Namespace, log: str, *arguments: str) -> dict[str, float]:
    """Run a part of this script in a child; what the system charges to it."""
    command = [sys.executable, str(Path(__file__).resolve()), "--model", str(options.model), "--cache"]
    command += [str(options.cache), "--threads", str(options.threads)]
    environment = os.environ | {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return charged([*command, *arguments], environment, options.cache / f"{log}.log")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Write every file, score it, and drop it."""
    cache = options.cache
    sizes = ["--num-samples", str(options.num_samples), "--num-heldout", str(options.num_heldout)]
    child(options, "prepare", "--task", "prepare", *sizes)
    child(options, "write-F32", "--task", "write", "--method", "rtn", "--types", "F32", "--out", str(cache / "F32"))
    child(
        options, "base", "--task", "logits", "--file", str(cache / "F32" / "m-F32.gguf"), "--out", str(cache / "base")
    )
    shutil.rmtree(cache / "F32")
    rows: dict[str, dict[str, Any]] = {name: {} for name in options.types}
    for method in METHODS:
        folder = cache / method
        child(options, method, "--task", "write", "--method", method, "--out", str(folder), "--types", *options.types)
        facts = json.loads((folder / "facts.json").read_text())["files"]
        for name in options.types:
            file = folder / f"m-{name}.gguf"
            arm = f"{method}-{name}"
            child(options, arm, "--task", "logits", "--file", str(file), "--out", str(cache / arm))
            found = facts[file.name]
            rows[name][method] = divergence(cache, arm)
            rows[name] |= {"bytes": found["bytes"], "tensors": found["tensors"]}
            if "error" in found:
                rows[name] |= {"error": found["error"], "imatrix_error": found["imatrix_error"]}
                rows[name]["fallbacks"] = len(found["fallbacks"])
            (cache / f"{arm}.npy").unlink()
            print(f"{arm}: KL {rows[name][method]['kl']:.5f}", flush=True)
        shutil.rmtree(folder)
    timed: dict[str, dict[str, dict[str, float]]] = {name: {} for name in options.timed}
    for name in options.timed:
        for method in METHODS:
            os.sync()  # what the last run left to the kernel must not slow this one
            out = cache / "timed"
            timed[name][method] = child(
                options, "timed", "--task", "write", "--method", method, "--types", name, "--out", str(out)
            )
            shutil.rmtree(out)
    data = json.loads((cache / "data.json").read_text())
    return {"types": rows, "timed": timed, "data": data}


def report(result: dict[str, Any]) -> None:
    """Print the tables."""
    print("\n| type   |    MB | KL imatrix | KL gptq |  ratio | top-1 imatrix | top-1 gptq | error, gptq / imatrix |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in result["types"].items():
        plain, ours = row["imatrix"], row["gptq"]
        error = f"{row['error'] / row['imatrix_error']:.2f} ({row['fallbacks']} fell back)" if "error" in row else "-"
        print(
            f"| {name:<6} | {row['bytes'] / 1e6:5.1f} | {plain['kl']:10.5f} | {ours['kl']:7.5f} "
            f"| {ours['kl'] / plain['kl']:5.2f}x | {plain['top1']:13.3f} | {ours['top1']:10.3f} | {error:<21} |"
        )
    if result["timed"]:
        print("\n| written | method  | wall s | CPU s | peak MB |")
        print("|---|---|---|---|---|")
    for name, methods in result["timed"].items():
        for method, row in methods.items():
            print(f"| {name:<7} | {method:<7} | {row['wall_s']:6.1f} | {row['cpu_s']:5.1f} | {row['peak_mb']:7.0f} |")
    show_data(result)
    show_environment(result)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "gguf-gptq"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--types", nargs="+", default=list(TYPES), help="GGUF types")
    parser.add_argument("--timed", nargs="*", default=["Q4_K_M"], help="types that are written alone and timed")
    parser.add_argument("--num-samples", type=int, default=32, help="conversations to calibrate with")
    parser.add_argument("--num-heldout", type=int, default=48, help="conversations to measure the damage on")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=default, help="where inputs and results lie")
    parser.add_argument("--task", choices=("prepare", "write", "logits"), help=argparse.SUPPRESS)
    parser.add_argument("--method", default="gptq", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task == "prepare":
        return prepare(options.model, options.cache, options.num_samples, options.num_heldout)
    if options.task == "write":
        return write(options, options.types, options.method, options.out)
    if options.task == "logits":
        return logits(options, options.file)
    shutil.rmtree(options.cache, ignore_errors=True)
    options.cache.mkdir(parents=True)
    result = measure(options) | {
        "model": options.model.name,
        "threads": options.threads,
        **environment("lf-export", "torch", "gguf", "xllamacpp"),
    }
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
