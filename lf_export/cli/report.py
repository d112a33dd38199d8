"""`lf-export report`: the page of a bench run, made again."""

from pathlib import Path

import click

from lf_export.cli.options import FILE, json_option


@click.command(short_help="The HTML page of a report.json, made again.")
@click.argument("source", type=FILE)
@click.option("-o", "--out", type=FILE, help="The file to write [default: report.html beside report.json].")
@json_option
def report(source: Path, out: Path | None, as_json: bool) -> int:
    """Make the HTML page of SOURCE, a report.json or the folder that holds one.

    `bench` and `run` write the page themselves. A file that is there is replaced.
    """
    from lf_export.cli.output import emit
    from lf_export.report.files import HTML_NAME, JSON_NAME, read_report, write_html
    from lf_export.steps.seal import seal_page

    path = source / JSON_NAME if source.is_dir() else source
    found = read_report(path)
    written = write_html(found, out or path.with_name(HTML_NAME))
    if written == path.with_name(HTML_NAME):
        seal_page(path.parent)
    emit(
        {"report": str(written), "bytes": written.stat().st_size, "verdict": found.verdict},
        str(written),
        as_json=as_json,
    )
    return 0
