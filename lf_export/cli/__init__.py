"""The command line: one small file per command, and the one place that shows errors.

Command modules import only click at the top, so that `--help` needs nothing heavy.
"""

import gc
import os
import sys
import traceback

import click

from lf_export.cli.bench import bench
from lf_export.cli.bom import bom
from lf_export.cli.calibrate import calibrate
from lf_export.cli.compare import compare
from lf_export.cli.completion import completion
from lf_export.cli.doctor import doctor
from lf_export.cli.inspect import inspect
from lf_export.cli.merge import merge
from lf_export.cli.quantize import quantize
from lf_export.cli.recipe import recipe
from lf_export.cli.report import report
from lf_export.cli.run import run
from lf_export.cli.sign import sign
from lf_export.cli.stop import show_stopped, stoppable
from lf_export.cli.try_ import try_
from lf_export.cli.verify import verify
from lf_export.errors import ExportError
from lf_export.version import __version__

# Objects made before Python looks for cycles. Importing torch and transformers makes them by the million, none of them
# garbage, and at Python's own threshold looking through them again and again takes a good part of the start.
_GC_THRESHOLD = 20_000

_EPILOG = (
    "Exit status: 0 done, gate PASS; 1 our bug; 2 wrong command line; 3 wrong recipe, model, adapter or data; "
    "4 a package, device or file is missing; 5 a step failed; 10 gate FAIL; 11 gate INCONCLUSIVE."
)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lf-export")
def app() -> None:
    """Ship a function-calling LLM in every format, and prove that it still calls functions."""


app.add_command(merge)
app.add_command(calibrate)
app.add_command(quantize)
app.add_command(bench)
app.add_command(compare)
app.add_command(report)
app.add_command(run)
app.add_command(recipe)
app.add_command(inspect)
app.add_command(verify)
app.add_command(sign)
app.add_command(bom)
app.add_command(try_)
app.add_command(doctor)
app.add_command(completion)


def main() -> None:
    """Run the command line and exit with the status of DESIGN's table; every error is shown here."""
    gc.set_threshold(_GC_THRESHOLD)
    try:
        with stoppable():
            status = app.main(standalone_mode=False)
    except ExportError as error:
        _show(error)
        status = error.status
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        show_stopped(error)
        status = 5
    except BrokenPipeError:
        # The reader of our output has gone: nobody is left to tell, and Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 5
    except Exception:  # noqa: BLE001 - the last resort: our bug, with its traceback
        traceback.print_exc()
        click.echo(f"error: this is a bug in lf-export {__version__}; the traceback above says where", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def _show(error: ExportError) -> None:
    for line in error.message.splitlines() or [""]:
        click.echo(f"error: {line}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
