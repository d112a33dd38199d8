"""Write the JSON Schema of report.json; `--check` says whether it is up to date."""

import argparse
import sys
from pathlib import Path

from lf_export.report import schema_text

PATH = Path(__file__).resolve().parent / "reference" / "report.schema.json"


def main() -> None:
    """Write the schema, or with `--check` exit with 1 where it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 where it is out of date")
    if not parser.parse_args().check:
        PATH.write_text(schema_text(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != schema_text():
        sys.exit(f"error: {PATH.name} is out of date\nhint: python docs/report_schema.py")


if __name__ == "__main__":
    main()
