"""How values look in tables, and the tables themselves, as Markdown and as plain text."""

from collections.abc import Sequence

NOTHING = "–"  # noqa: RUF001 - a dash is what an empty cell shows
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")


def percent(share: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def rate(count: int | None, n: int | None) -> str:
    """A count of `n` as a percentage; nothing where there are no items."""
    return percent(count / n) if count is not None and n else NOTHING


def points(share: float | None) -> str:
    """A difference of shares in percentage points."""
    return NOTHING if share is None else f"{100 * share:.1f} pp"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent above a thousandth."""
    if value is None:
        return NOTHING
    if value and abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".removesuffix(".")


def percents(lower: float | None, upper: float | None) -> str:
    """The two ends of an interval of shares."""
    return NOTHING if lower is None or upper is None else f"{percent(lower)} to {percent(upper)}"


def span(lower: float | None, upper: float | None) -> str:
    """The two ends of an interval."""
    return NOTHING if lower is None or upper is None else f"{number(lower)} to {number(upper)}"


def milliseconds(seconds: float | None) -> str:
    """A time in milliseconds."""
    return NOTHING if seconds is None else f"{number(1000 * seconds)} ms"


def seconds(value: float | None) -> str:
    """A time in seconds."""
    return NOTHING if value is None else f"{number(value)} s"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_BYTE_UNITS[unit]}"


def short(digest: str | None) -> str:
    """The beginning of a digest; the JSON has the rest."""
    return NOTHING if digest is None else f"`{digest[:16]}`"


def ratio(value: float | None, baseline: float | None) -> str:
    """`value` as a multiple of the baseline's."""
    return NOTHING if value is None or not baseline else f"{value / baseline:.2f}×"  # noqa: RUF001 - the sign for "times"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    marks = [":--", *["--:"] * (len(head) - 1)]
    lines = [[_escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(head), marks, *lines])


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: columns as wide as they need, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        first, *rest = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
