"""lf-export from Python: a function for each command that makes or judges something.

A function takes what its command takes, by the same names and with the same defaults, and returns what the command
prints with `--json`. What is wrong is an `ExportError`; a gate's verdict is no error, it stands in the report.

Everything heavy is imported when a function is called, so that `import lf_export` costs nothing. Progress is shown
where `lf_export.progress.reporting` says so.
"""

from lf_export.api.judging import bench
from lf_export.api.making import calibrate, merge, quantize
from lf_export.api.recipes import plan, run

__all__ = ["bench", "calibrate", "merge", "plan", "quantize", "run"]
