"""The report as one self-contained HTML page."""

from lf_export.report.html.page import to_html

__all__ = ["to_html"]
