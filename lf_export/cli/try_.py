"""`lf-export try`: an artifact by hand, on a page of this machine."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, threads_option


@click.command(name="try", short_help="A page on this machine: ask an artifact, see its call checked.")
@click.argument("artifact", type=FOLDER)
@click.option("--against", type=FOLDER, help="A second artifact, such as the merged model: asked the same, beside it.")
@click.option("--dialect", help="As the model was trained [default: what the artifact's manifest says].")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME", help="The artifact's runtime; twice: also the second's."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 for a free one.")
@threads_option
def try_(
    artifact: Path,
    against: Path | None,
    dialect: str | None,
    runtimes: tuple[str, ...],
    host: str,
    port: int,
    threads: int,
) -> int:
    """Open a page that asks ARTIFACT: functions and a message in, the answer and its checked call out.

    The page is served to this machine alone unless --host says otherwise, and fetches nothing. Ctrl-C ends it.
    """
    import tempfile

    from lf_export.trial import Trial, open_artifacts, serve
    from lf_export.trial.page import gradio
    from lf_export.trial.serve import is_loopback

    gradio()  # what is missing is said before a model is loaded
    paths = [artifact, *([against] if against else [])]
    if len(runtimes) > len(paths):
        raise click.UsageError("--runtime is given more often than there are artifacts.")
    wanted = [*runtimes, *[None] * (len(paths) - len(runtimes))]

    def ready(address: str) -> None:
        if not is_loopback(host):
            click.echo(f"anyone who reaches {host} can ask the model", err=True)
        click.echo(f"{address} (Ctrl-C ends it)")

    with tempfile.TemporaryDirectory() as scratch:
        artifacts, spoken = open_artifacts(
            paths, dialect=dialect, runtimes=wanted, threads=threads, workdir=Path(scratch)
        )
        serve(Trial(artifacts, spoken), host, port, ready=ready)
    return 0
