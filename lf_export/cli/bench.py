"""`lf-export bench`: artifacts against the merged model, and the verdict."""

from pathlib import Path
from typing import Any, Literal

import click

from lf_export.cli.options import FOLDER, json_option, margin_option, threads_option, wait_option
from lf_export.cli.speed import chosen, counts, speed_options

_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Artifacts against the merged model: the verdict.")
@click.argument("artifacts", nargs=-1)
@click.option("--baseline", type=FOLDER, help="The merged model that the artifacts are made of.")
@click.option("-o", "--out", type=FOLDER, help="The folder for report.html, .json, .md, junit.xml.")
@click.option("--dialect", default="chat-template", show_default=True, help="As the model was trained.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="[ARTIFACT=]NAME",
    help="torch, transformers, llamacpp, onnx or genai, for all or for one artifact [default: the format's own].",
)
@click.option(
    "--calls",
    default="shipped:suites/calls.jsonl",
    show_default=True,
    help="The suite of calls: a file, shipped:FILE, bfcl:PATH or hf:NAME[:SPLIT].",
)
@click.option("--no-call", default="shipped:suites/no-call.jsonl", show_default=True, help="The suite without calls.")
@click.option("--chat", default="shipped:suites/chat.jsonl", show_default=True, help="Text for perplexity.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME",
    help="The suites' items changed, reported beside the gate: masked (functions and arguments under neutral names), "
    "distractors:N (N functions of other items shown too).",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    type=click.Choice(["raw", "constrained", "routed"]),
    help="Ways to answer, reported beside the raw one, which the gate judges: constrained (held to a grammar of the "
    "calls), routed (a classifier decides call or prose).",
)
@click.option(
    "--allow-contaminated",
    multiple=True,
    metavar="NAME",
    help="A function of the suites, or a whole suite (calls, no-call), that an artifact may be calibrated on.",
)
@click.option("--limit-calls", type=click.IntRange(min=1), help="A stratified part of the suite of calls.")
@click.option("--limit-no-call", type=click.IntRange(min=1), help="A stratified part of the suite without calls.")
@click.option("--limit-chat", type=click.IntRange(min=1), help="A part of the chat text.")
@click.option("--max-new-tokens", type=click.IntRange(min=8), default=192, show_default=True, help="Longest answer.")
@click.option("--model", help="At an endpoint: the model's name there [default: the only one that it lists].")
@click.option(
    "--api",
    type=click.Choice(["auto", "completions", "chat"]),
    default="auto",
    show_default=True,
    help="At an endpoint: completions takes our own prompt, chat messages and tools.",
)
@click.option("--api-key-env", metavar="VARIABLE", help="The variable with its key [default: OPENAI_API_KEY].")
@click.option("--concurrency", default="1,4", show_default=True, help="Requests under way together, one run each.")
@click.option("--requests", type=click.IntRange(min=1), default=16, show_default=True, help="Requests of such a run.")
@click.option("--ttft-limit", type=_SECONDS, default=1.0, show_default=True, help="Goodput: to the first token.")
@click.option("--tpot-limit", type=_SECONDS, default=0.1, show_default=True, help="Goodput: for each token after it.")
@click.option("--read-timeout", type=_SECONDS, default=60.0, show_default=True, help="Seconds without a byte.")
@click.option("--total-timeout", type=_SECONDS, default=300.0, show_default=True, help="Seconds for an answer.")
@speed_options
@margin_option
@click.option(
    "--enforce", multiple=True, metavar="ARTIFACT", help="Artifacts that decide the exit status [default: all]."
)
@click.option(
    "--controls",
    is_flag=True,
    help="Judge the baseline against itself, and as Q8_0 and Q2_K: expected are no flips, PASS and FAIL.",
)
@click.option(
    "--cache",
    type=FOLDER,
    envvar="LF_EXPORT_CACHE",
    show_envvar=True,
    help="Where the baseline's answers are kept for other runs, at most 2 GB; an empty variable keeps none "
    "[default: lf-export/baselines in the user's cache].",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing of the baseline, and take nothing that was kept.")
@click.option("--plan", is_flag=True, help="Measure nothing: say how many items a PASS needs, and how many there are.")
@click.option(
    "--discordance",
    multiple=True,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With --plan: the share of items that may flip either way [default: several].",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the stratified parts.")
@threads_option
@json_option
@wait_option
def bench(
    artifacts: tuple[str, ...],
    baseline: Path | None,
    out: Path | None,
    dialect: str,
    runtimes: tuple[str, ...],
    calls: str,
    no_call: str,
    chat: str,
    variants: tuple[str, ...],
    arms: tuple[str, ...],
    allow_contaminated: tuple[str, ...],
    limit_calls: int | None,
    limit_no_call: int | None,
    limit_chat: int | None,
    max_new_tokens: int,
    model: str | None,
    api: Literal["auto", "completions", "chat"],
    api_key_env: str | None,
    concurrency: str,
    requests: int,
    ttft_limit: float,
    tpot_limit: float,
    read_timeout: float,
    total_timeout: float,
    margin: float,
    enforce: tuple[str, ...],
    controls: bool,
    cache: Path | None,
    no_cache: bool,
    plan: bool,
    discordance: tuple[float, ...],
    seed: int,
    threads: int,
    as_json: bool,
    **speed: Any,
) -> int:
    """Judge ARTIFACTS item by item against the baseline, each in its own runtime.

    An artifact is a folder, a GGUF file, or [NAME=]endpoint:URL: an OpenAI-compatible server, such as
    endpoint:http://127.0.0.1:8080/v1. Its key comes from the environment.

    With --plan nothing is measured and neither is needed.

    Exit status: 0 PASS, 10 FAIL, 11 INCONCLUSIVE.
    """
    from lf_export.cli.output import emit

    if plan:
        from lf_export.steps.bench_plan import USUAL_DISCORDANCE, PlanOptions, plan_bench, plan_text

        planned = plan_bench(
            PlanOptions(
                suites={"calls": (calls, limit_calls), "no_call": (no_call, limit_no_call)},
                margin=margin,
                discordance=discordance or USUAL_DISCORDANCE,
                seed=seed,
            )
        )
        emit(planned, plan_text(planned), as_json=as_json)
        return 0
    missing = {"argument 'ARTIFACTS...'": artifacts, "option '--baseline'": baseline, "option '-o' / '--out'": out}
    for what, given in missing.items():
        if not given:
            raise click.UsageError(f"Missing {what}.")
    assert baseline is not None  # noqa: S101 - refused above
    assert out is not None  # noqa: S101
    from lf_export import api as functions
    from lf_export.cli.progress import shown
    from lf_export.steps.bench import BenchOutcome

    requests_together = counts(concurrency, "--concurrency")
    batches = chosen(speed)
    with shown():
        found = functions.bench(
            artifacts,
            baseline,
            out,
            dialect=dialect,
            runtimes=runtimes,
            calls=calls,
            no_call=no_call,
            chat=chat,
            variants=variants,
            arms=arms,
            allow_contaminated=allow_contaminated,
            limit_calls=limit_calls,
            limit_no_call=limit_no_call,
            limit_chat=limit_chat,
            max_new_tokens=max_new_tokens,
            model=model,
            api=api,
            api_key_env=api_key_env,
            concurrency=requests_together,
            requests=requests,
            ttft_limit=ttft_limit,
            tpot_limit=tpot_limit,
            read_timeout=read_timeout,
            total_timeout=total_timeout,
            margin=margin,
            enforce=enforce or None,
            controls=controls,
            cache=cache,
            no_cache=no_cache,
            seed=seed,
            threads=threads,
            **batches,
        )
    outcome = BenchOutcome.of(found, out)
    emit(outcome.facts, outcome.text, as_json=as_json)
    return outcome.status
