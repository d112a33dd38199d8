"""`bench`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lf_export.api.given import StrPath, Texts, above, one_of, texts, thread_count, within
from lf_export.errors import InputError

if TYPE_CHECKING:
    from lf_export.report import Report


def bench(
    artifacts: StrPath | Sequence[StrPath],
    baseline: StrPath,
    out: StrPath,
    *,
    dialect: str = "chat-template",
    runtimes: Texts | Mapping[str, str] = (),
    calls: str = "shipped:suites/calls.jsonl",
    no_call: str = "shipped:suites/no-call.jsonl",
    chat: str = "shipped:suites/chat.jsonl",
    variants: Texts = (),
    arms: Texts = (),
    allow_contaminated: Texts = (),
    limit_calls: int | None = None,
    limit_no_call: int | None = None,
    limit_chat: int | None = None,
    max_new_tokens: int = 192,
    model: str | None = None,
    api: Literal["auto", "completions", "chat"] = "auto",
    api_key_env: str | None = None,
    concurrency: Sequence[int] = (1, 4),
    requests: int = 16,
    ttft_limit: float = 1.0,
    tpot_limit: float = 0.1,
    read_timeout: float = 60.0,
    total_timeout: float = 300.0,
    prompt_lengths: Sequence[int] | None = None,
    batch_sizes: Sequence[int] = (1, 4),
    new_tokens: int = 32,
    warmup: int = 1,
    repeats: int = 5,
    margin: float = 0.05,
    enforce: Texts | None = None,
    controls: bool = False,
    cache: StrPath | None = None,
    no_cache: bool = False,
    seed: int = 0,
    threads: int | None = None,
    wait: bool = False,
) -> "Report":
    """Judge artifacts item by item against the merged model; returns the report, whose `verdict` is the gate's.

    >>> report = lf_export.bench(["out/gptq-4bit", "out/gguf-q4_k_m"], "merged", "bench")
    >>> report.verdict
    'PASS'
    >>> {each.name: each.gate.verdict for each in report.artifacts}

    `report.json` and its views lie in `out` afterwards.

    Args:
        artifacts: a folder, a GGUF file or `[NAME=]endpoint:URL`; one, or several.
        baseline: the merged model that they are made of.
        out: the folder for `report.html`, `.json`, `.md` and `junit.xml`.
        dialect: as the model was trained.
        runtimes: one for all artifacts, or by artifact (also as `ARTIFACT=NAME`); each format's own where not given.
        calls: the suite of calls: a file, `shipped:FILE`, `bfcl:PATH` or `hf:NAME[:SPLIT]`.
        no_call: the suite without calls, likewise.
        chat: text for perplexity, likewise.
        variants: the suites' items changed: `masked`, `distractors:N`.
        arms: beside the raw answers: `constrained` to a grammar, `routed` by a classifier.
        allow_contaminated: functions of the suites that an artifact may be calibrated on, or whole suites.
        limit_calls: a stratified part of the suite of calls.
        limit_no_call: a stratified part of the suite without calls.
        limit_chat: a part of the chat text.
        max_new_tokens: the longest answer.
        model: at an endpoint: the model's name there.
        api: at an endpoint: `completions` takes our own prompt, `chat` messages and tools.
        api_key_env: the environment variable with its key.
        concurrency: requests under way together, one run each.
        requests: of such a run.
        ttft_limit: goodput: seconds to the first token.
        tpot_limit: goodput: seconds for each token after it.
        read_timeout: seconds without a byte.
        total_timeout: seconds for an answer.
        prompt_lengths: time batches of prompts of exactly so many tokens too, in turn with the baseline.
        batch_sizes: with `prompt_lengths`: prompts that are answered together.
        new_tokens: with `prompt_lengths`: tokens written to each prompt.
        warmup: with `prompt_lengths`: batches before each length and size that do not count.
        repeats: with `prompt_lengths`: batches that count.
        margin: the largest loss that is accepted, as a share of items.
        enforce: the artifacts that decide the verdict; all where not given.
        controls: also judge the baseline against itself, and as Q8_0 and Q2_K.
        cache: the folder that keeps the baseline's answers for other runs; that of the command line where not given.
        no_cache: keep nothing of the baseline, and take nothing that was kept.
        seed: of the stratified parts.
        threads: to compute with; the cores that this process may use where not given.
        wait: while another run writes the output, instead of an error.

    Raises:
        InputError: artifacts, suites, a dialect or a baseline that cannot be used.
        MissingError: a runtime's package is not installed.
        StepError: the baseline cannot be measured, or a server does not answer before it is.
    """
    from lf_export.checkpoint.lock import waiting
    from lf_export.recipe.names import arms_beside
    from lf_export.report import Report
    from lf_export.steps.baseline_cache import cache_folder
    from lf_export.steps.bench import bench_artifacts, runtimes_by_name
    from lf_export.steps.bench_options import BenchOptions
    from lf_export.steps.judged import judged_artifacts
    from lf_export.steps.latency_grid import Grid

    count = thread_count(threads)
    for name, limit in {"limit_calls": limit_calls, "limit_no_call": limit_no_call, "limit_chat": limit_chat}.items():
        within(name, 1 if limit is None else limit, 1)
    within("max_new_tokens", max_new_tokens, 8)
    one_of("api", api, ("auto", "completions", "chat"))
    for arm in texts(arms):
        one_of("arms", arm, ("raw", "constrained", "routed"))
    within("requests", requests, 1)
    for level in concurrency or (0,):
        within("concurrency", level, 1, 1024)
    for name, numbers, most in (("prompt_lengths", prompt_lengths, 1 << 20), ("batch_sizes", batch_sizes, 1024)):
        for number in (1,) if numbers is None else numbers or (0,):
            within(name, number, 1, most)
    for name, number, least in (("new_tokens", new_tokens, 2), ("warmup", warmup, 1), ("repeats", repeats, 1)):
        within(name, number, least)
    seconds = {"ttft_limit": ttft_limit, "tpot_limit": tpot_limit}
    seconds |= {"read_timeout": read_timeout, "total_timeout": total_timeout}
    for name, value in {**seconds, "margin": margin}.items():
        above(name, value, 1 if name == "margin" else None)
    given = [artifacts] if isinstance(artifacts, str | os.PathLike) else artifacts
    if not given:
        raise InputError("artifacts: there is none, at least one was expected")
    named = judged_artifacts(
        [os.fspath(each) for each in given],
        model=model,
        api=api,
        api_key_env=api_key_env,
        concurrency=tuple(concurrency),
        requests=requests,
        **seconds,
    )
    chosen = [f"{name}={each}" for name, each in runtimes.items()] if isinstance(runtimes, Mapping) else texts(runtimes)
    options = BenchOptions(
        dialect=dialect,
        calls=calls,
        no_call=no_call,
        chat=chat,
        variants=texts(variants),
        arms=arms_beside(texts(arms)),
        allow_contaminated=texts(allow_contaminated),
        limit_calls=limit_calls,
        limit_no_call=limit_no_call,
        limit_chat=limit_chat,
        max_new_tokens=max_new_tokens,
        grid=None
        if prompt_lengths is None
        else Grid(tuple(prompt_lengths), tuple(batch_sizes), new_tokens, warmup, repeats),
        runtimes=runtimes_by_name(chosen, tuple(named)),
        margin=margin,
        enforce=None if enforce is None else texts(enforce),
        controls=controls,
        seed=seed,
        threads=count,
        cache=None if no_cache else cache_folder() if cache is None else Path(cache),
    )
    with waiting(wait=wait):
        return Report.model_validate(bench_artifacts(named, Path(baseline), Path(out), options).facts)
