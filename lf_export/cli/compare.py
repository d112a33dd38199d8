"""`lf-export compare`: two bench runs beside each other."""

from pathlib import Path

import click

from lf_export.cli.options import json_option, margin_option

_REPORT = click.Path(path_type=Path)


@click.command(short_help="Two bench runs, item by item.")
@click.argument("before", type=_REPORT)
@click.argument("after", type=_REPORT)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="EARLIER=LATER",
    help="Artifacts to compare [default: all names that both reports have, the merged model included].",
)
@margin_option
@json_option
def compare(before: Path, after: Path, pairs: tuple[str, ...], margin: float, as_json: bool) -> int:
    """Judge the report AFTER against the report BEFORE: the same items, the same gate.

    Each is a report.json or the folder that holds one. Exit status: 0 PASS, 10 FAIL, 11 INCONCLUSIVE.
    """
    from lf_export.cli.output import emit
    from lf_export.report.files import JSON_NAME, read_report
    from lf_export.steps.compare import compare_reports

    named = {}
    for pair in pairs:
        one, equals, other = pair.partition("=")
        if not equals or not one or not other:
            raise click.BadParameter(f"{pair!r}: expected EARLIER=LATER", param_hint="--pair")
        named[one] = other
    reports = [read_report(path / JSON_NAME if path.is_dir() else path) for path in (before, after)]
    found = compare_reports(*reports, pairs=named or None, margin=margin)
    emit(found.facts(), found.text(), as_json=as_json)
    return found.status
