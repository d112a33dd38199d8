"""KL over the shipped suites: lf-export's llama.cpp runtime against llama.cpp's own `llama-perplexity --kl-divergence`.

Both judge the same GGUF on the same token ids against the same baseline. `llama-perplexity` does not parse special
tokens, but takes token ids from the file with the baseline's logits: the script writes that file itself, from the
merged model in torch, in llama.cpp's form (log-probabilities in 16 bits). The prompts and reference answers of both
suites stand one after the other, cut into chunks of 512 tokens as `llama-perplexity` does; the second half of each is
judged. Both are timed as processes, start and load included, in turns.

No wheel has the program: it is built once from the llama.cpp in the sdist of llama-cpp-python, into the cache, with the
instruction sets that the wheel of xllamacpp is built with; --native builds for this processor instead.

    python benchmarks/perplexity_kl.py --model MERGED [--type Q4_K_M] [--chunks 24] [--json FILE]
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from charged import charged
from ran import environment, leave, medians_of, show_environment

REQUIREMENT = "llama-cpp-python==0.3.36"
SDIST = "llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SOURCE = "llama_cpp_python-0.3.36/vendor/llama.cpp"
CMAKE = ("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF")
CMAKE += ("LLAMA_BUILD_SERVER=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_OPENSSL=OFF")
AS_THE_WHEEL = ("GGML_NATIVE=OFF", *(f"GGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2")))
N_CTX = 512
FIRST = N_CTX // 2
JUDGED = N_CTX - 1 - FIRST
OURS, THEIRS = "lf-export", "llama-perplexity"


def build(cache: Path, *, native: bool) -> Path:
    """The program, fetched as source and built where it is not there yet."""
    folder = cache / ("build-native" if native else "build-wheel")
    program = folder / "bin" / "llama-perplexity"
    if program.is_file():
        return program
    source = cache / SOURCE
    if not source.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=llama-cpp-python"]
        subprocess.run([*pip, "--dest", str(cache), REQUIREMENT], check=True)
        with (cache / SDIST).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != SHA256:
            sys.exit(f"error: {SDIST} has sha256 {found}, expected {SHA256}")
        with tarfile.open(cache / SDIST) as archive:
            archive.extractall(cache, filter="data")
    print(f"building {program} (six minutes of one core)", flush=True)
    flags = [f"-D{flag}" for flag in (*CMAKE, *(("GGML_NATIVE=ON",) if native else AS_THE_WHEEL))]
    jobs = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    with (cache / "build.log").open("w") as log:
        for command in (
            ["cmake", "-S", str(source), "-B", str(folder), *flags],
            ["cmake", "--build", str(folder), "--target", "llama-perplexity", "-j", jobs],
        ):
            if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"error: {' '.join(command)} failed: see {cache / 'build.log'}")
    return program


def make_gguf(model: Path, scheme: str, cache: Path) -> Path:
    """The model as a GGUF, rounded without calibration: it is to be damaged enough to have a KL."""
    from lf_export.checkpoint.index import open_checkpoint
    from lf_export.formats.gguf import FORMAT, GgufOptions

    out = cache / scheme
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    FORMAT.open(open_checkpoint(model), out, GgufOptions(types=(scheme,), method="rtn", name="m"), "digest").finish()
    (file,) = out.glob("*.gguf")
    return file


def chunks_of(model: Path, gguf: Path, count: int) -> list[list[int]]:
    """Prompts and reference answers of both suites, one after the other in a fixed order, as `count` chunks."""
    import gguf as gguf_library

    from lf_export.calibration.suites import load_suite, stratified
    from lf_export.functions.dialects import dialect_for
    from lf_export.runtimes.causal import load_tokenizer
    from lf_export.shipped import shipped
    from lf_export.steps.prompts import prepare

    tokenizer = load_tokenizer(model)
    folder = shipped("calibration") / "suites"
    suites = [load_suite(folder / f"{name}.jsonl") for name in ("calls", "no-call")]
    items = stratified([item for suite in suites for item in suite], min(2 * count, sum(map(len, suites))), seed=0)
    ids = [
        token for each in prepare(items, dialect_for("chat-template", tokenizer), tokenizer) for token in each.full_ids
    ]
    if len(ids) < count * N_CTX:
        sys.exit(f"error: --chunks {count}: the suites have {len(ids):,} tokens")
    chunks = [ids[start : start + N_CTX] for start in range(0, count * N_CTX, N_CTX)]
    field = gguf_library.GGUFReader(gguf).get_field("tokenizer.ggml.add_bos_token")
    if field is not None and bool(field.contents()):  # llama-perplexity then puts it in place of each first token
        chunks = [[tokenizer.bos_token_id, *chunk[1:]] for chunk in chunks]
    return chunks


def baseline(model: Path, chunks: list[list[int]], cache: Path, threads: int) -> None:
    """The merged model's distributions in both forms: as lf-export keeps them, and as `llama-perplexity` reads them."""
    import numpy as np

    from lf_export.metrics.kept import keep
    from lf_export.runtimes import runtime

    session = runtime("torch").open_session(model, threads)
    width = session.vocab_size
    with (cache / "base.kld").open("wb") as file:
        file.write(b"_logits_" + struct.pack("<Iii", N_CTX, width, len(chunks)))
        file.write(np.array(chunks, np.int32).tobytes())
        for number, chunk in enumerate(chunks):
            (logits,) = session.score((), [chunk], [FIRST + 1])
            keep(logits).save(cache / f"{number}.kept")
            file.write(packed(logits).tobytes())
    session.close()


def packed(logits: Any) -> Any:
    """Rows of 16-bit log-probabilities as `llama-perplexity` writes them, each after its scale and its least value."""
    import numpy as np

    most = logits.max(axis=1, keepdims=True)
    least = np.maximum(logits.min(axis=1, keepdims=True), most - np.float32(16))
    log_sum = np.log(np.exp(logits - most).sum(axis=1, dtype=np.float64, keepdims=True)).astype(np.float32)
    scale = (most - least) / np.float32(65535)
    steps = np.where(logits > least, np.rint((logits - least) / scale), 0).astype(np.uint16)
    head = np.concatenate([scale, least - most - log_sum], axis=1).astype(np.float32).view(np.uint16)
    pad = np.zeros((len(logits), logits.shape[1] % 2), np.uint16)
    return np.concatenate([head, steps, pad], axis=1)


def ours(options: argparse.Namespace) -> None:
    """Our side: scored in a child process, compared with what was kept, as a bench does it."""
    import numpy as np

    from lf_export.metrics.kept import Kept, compare_kept
    from lf_export.runtimes.child import ChildSession

    found = []
    with ChildSession("llamacpp", options.gguf, options.threads, options.cache) as session:
        for number, chunk in enumerate(json.loads((options.cache / "chunks.json").read_text())):
            (logits,) = session.score((), [chunk], [FIRST + 1])
            found.append(compare_kept(Kept.load(options.cache / f"{number}.kept"), logits, chunk[FIRST + 1 :]))
    kl, same = (np.concatenate([getattr(each, name) for each in found]) for name in ("kl", "same_top1"))
    room = np.concatenate([each.kl_room for each in found])
    error = kl.std() / np.sqrt(len(kl) - 1)
    facts = {"tokens": len(kl), "kl": kl.mean(), "standard_error": error, "top1": same.mean(), "kl_room": room.mean()}
    options.out.write_text(json.dumps({key: float(value) for key, value in facts.items()}))


def theirs(log: Path) -> dict[str, float]:
    """What `llama-perplexity` printed at its end."""
    text = log.read_text(errors="replace")
    kl = re.search(r"Mean\s+KLD:\s+([\d.]+) ±\s+([\d.]+)", text)
    top = re.search(r"Same top p:\s+([\d.]+)", text)
    if not kl or not top:
        sys.exit(f"error: no KL in what llama-perplexity printed:\n{text[-2000:]}")
    return {"kl": float(kl[1]), "standard_error": float(kl[2]), "top1": float(top[1]) / 100}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both in turns; times of each, their KL."""
    program = build(options.cache, native=options.native)
    gguf = make_gguf(options.model, options.type, options.cache)
    chunks = chunks_of(options.model, gguf, options.chunks)
    (options.cache / "chunks.json").write_text(json.dumps(chunks))
    baseline(options.model, chunks, options.cache, options.threads)
    threads, out = str(options.threads), options.cache / "ours.json"
    here = [sys.executable, str(Path(__file__).resolve()), "--model", str(options.model), "--threads", threads]
    base = str(options.cache / "base.kld")
    judge = [str(program), "-m", str(gguf), "--kl-divergence", "--kl-divergence-base", base]
    commands = {
        OURS: [*here, "--cache", str(options.cache), "--gguf", str(gguf), "--out", str(out)],
        THEIRS: [*judge, "-t", threads, "-c", str(N_CTX)],
    }
    variables = os.environ | {"OMP_NUM_THREADS": threads}
    raw: dict[str, list[dict[str, float]]] = {OURS: [], THEIRS: []}
    judged = {}
    for run in range(options.runs):
        for name in (OURS, THEIRS) if run % 2 == 0 else (THEIRS, OURS):
            log = options.cache / f"{name}.log"
            raw[name].append(charged(commands[name], variables, log))
            judged[name] = json.loads(out.read_text()) if name == OURS else theirs(log)
            print(f"run {run} {name}: {raw[name][-1]['wall_s']:.1f} s, {judged[name]}", flush=True)
    return {"raw": raw, "medians": medians_of(raw), "judged": judged, "tokens": len(chunks) * JUDGED}


def report(result: dict[str, Any]) -> bool:
    """Print the table; whether both bounds hold."""
    count, medians, judged = result["tokens"], result["medians"], result["judged"]
    print(f"\n| {result['type']} | wall s | ms a token | CPU s | peak MB | mean KL | top-1 |")
    print("|---|---|---|---|---|---|---|")
    for name in (OURS, THEIRS):
        row, found = medians[name], judged[name]
        print(
            f"| {name:<16} | {row['wall_s']:6.1f} | {1e3 * row['wall_s'] / count:6.2f} | {row['cpu_s']:6.1f} | "
            f"{row['peak_mb']:6.0f} | {found['kl']:.6f} ± {found['standard_error']:.6f} | {found['top1']:.4f} |"
        )
    ratio = medians[OURS]["wall_s"] / medians[THEIRS]["wall_s"]
    apart = abs(judged[OURS]["kl"] - judged[THEIRS]["kl"])
    print(f"\n{count:,} judged tokens in {result['chunks']} chunks of {N_CTX}, {result['model']}")
    show_environment(result, f", medians of {result['runs']}; {THEIRS} of {REQUIREMENT}, {result['build']}")
    close = apart <= judged[THEIRS]["standard_error"]
    print(f"bound wall <= {THEIRS}'s: {'met' if ratio <= 1 else 'NOT MET'} ({ratio:.2f}x)")
    print(f"bound KL within its standard error: {'met' if close else 'NOT MET'} (apart {apart:.6f})")
    return ratio <= 1 and close


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lf-export" / "benchmarks" / "perplexity"
    parser.add_argument("--model", type=Path, required=True, help="a merged model folder")
    parser.add_argument("--type", default="Q4_K_M", help="the GGUF's type")
    parser.add_argument("--chunks", type=int, default=24, help="chunks of 512 tokens")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--native", action="store_true", help="build llama-perplexity for this processor")
    parser.add_argument("--build-only", action="store_true", help="build llama-perplexity and end")
    parser.add_argument("--json", type=Path, help="write the raw values there")
    parser.add_argument("--cache", type=Path, default=cache, help="where the program and the inputs lie")
    parser.add_argument("--gguf", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.gguf:
        ours(options)
        return
    if options.build_only:
        print(build(options.cache, native=options.native))
        return
    result = measure(options) | {
        "model": options.model.name,
        "type": options.type,
        "chunks": options.chunks,
        "runs": options.runs,
        "threads": options.threads,
        "build": "built for this processor"
        if options.native
        else "built for the instruction sets of xllamacpp's wheel",
        **environment("lf-export", "torch", "xllamacpp"),
    }
    leave(result, options.json, met=report(result))


if __name__ == "__main__":
    main()
