"""`lf-export bench`: artifacts against the merged model, and the verdict."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option, margin_option, threads_option


@click.command(short_help="Artifacts against the merged model: the verdict.")
@click.argument("artifacts", type=FOLDER, nargs=-1, required=True)
@click.option("--baseline", type=FOLDER, required=True, help="The merged model that the artifacts are made of.")
@click.option("-o", "--out", type=FOLDER, required=True, help="The folder for report.html, .json, .md, junit.xml.")
@click.option("--dialect", default="chat-template", show_default=True, help="As the model was trained.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="[ARTIFACT=]NAME",
    help="torch, transformers, llamacpp, onnx or genai, for all or for one artifact [default: the format's own].",
)
@click.option("--calls", default="shipped:suites/calls.jsonl", show_default=True, help="The suite of calls.")
@click.option("--no-call", default="shipped:suites/no-call.jsonl", show_default=True, help="The suite without calls.")
@click.option("--chat", default="shipped:suites/chat.jsonl", show_default=True, help="Text for perplexity.")
@click.option("--limit-calls", type=click.IntRange(min=1), help="A stratified part of the suite of calls.")
@click.option("--limit-no-call", type=click.IntRange(min=1), help="A stratified part of the suite without calls.")
@click.option("--limit-chat", type=click.IntRange(min=1), help="A part of the chat text.")
@click.option("--max-new-tokens", type=click.IntRange(min=8), default=192, show_default=True, help="Longest answer.")
@margin_option
@click.option(
    "--enforce", multiple=True, metavar="ARTIFACT", help="Artifacts that decide the exit status [default: all]."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the stratified parts.")
@threads_option
@json_option
def bench(
    artifacts: tuple[Path, ...],
    baseline: Path,
    out: Path,
    dialect: str,
    runtimes: tuple[str, ...],
    calls: str,
    no_call: str,
    chat: str,
    limit_calls: int | None,
    limit_no_call: int | None,
    limit_chat: int | None,
    max_new_tokens: int,
    margin: float,
    enforce: tuple[str, ...],
    seed: int,
    threads: int,
    as_json: bool,
) -> int:
    """Judge ARTIFACTS item by item against the baseline, each in its own runtime.

    Exit status: 0 PASS, 10 FAIL, 11 INCONCLUSIVE.
    """
    from lf_export.cli.output import emit
    from lf_export.cli.progress import shown
    from lf_export.steps.bench import BenchOptions, bench_artifacts, named_artifacts, runtimes_by_name

    named = named_artifacts(artifacts)
    options = BenchOptions(
        dialect=dialect,
        calls=calls,
        no_call=no_call,
        chat=chat,
        limit_calls=limit_calls,
        limit_no_call=limit_no_call,
        limit_chat=limit_chat,
        max_new_tokens=max_new_tokens,
        runtimes=runtimes_by_name(runtimes, tuple(named)),
        margin=margin,
        enforce=enforce or None,
        seed=seed,
        threads=threads,
    )
    with shown():
        outcome = bench_artifacts(named, baseline, out, options)
    emit(outcome.facts, outcome.text, as_json=as_json)
    return outcome.status
