"""`lf-export bom`: the bill of materials of an artifact."""

from pathlib import Path

import click

from lf_export.cli.options import FOLDER, json_option


@click.command(short_help="The bill of materials of an artifact.")
@click.argument("paths", type=FOLDER, nargs=-1, required=True)
@click.option("--report", type=FOLDER, help="A bench folder, whose figures go into it.")
@json_option
def bom(paths: tuple[Path, ...], report: Path | None, as_json: bool) -> int:
    """Write bom.cdx.json into each of PATHS, a merged or quantized folder, in CycloneDX's JSON.

    The model and its files with their digests, base and adapters, calibration data, licence, tools; the same twice
    gives the same bytes. A signature that lies there no longer holds afterwards: `sign` writes both.
    """
    from lf_export.cli.output import emit
    from lf_export.steps.bom import write_bom

    written = [write_bom(path, report) for path in paths]
    emit({"boms": [str(each) for each in written]}, "\n".join(map(str, written)), as_json=as_json)
    return 0
