"""`python -m lf_export`."""

from lf_export.cli import main

main()
