"""What the functions are given, checked as the command line checks it."""

import os
from collections.abc import Sequence

from lf_export.errors import InputError

StrPath = str | os.PathLike[str]
Texts = str | Sequence[str]


def thread_count(wanted: int | None) -> int:
    """The threads to compute with: as asked for, else every core that the process may use."""
    from lf_export.steps.estimate import threads

    within("threads", 1 if wanted is None else wanted, 1)
    return threads(wanted)


def texts(given: Texts) -> tuple[str, ...]:
    """One text or several; none where it is empty."""
    return ((given,) if given else ()) if isinstance(given, str) else tuple(given)


def size(name: str, given: int | str | None) -> int | None:
    """Bytes, of a number or of a text such as `4GB`."""
    from lf_export.walk.budget import parse_size

    try:
        return None if given is None else parse_size(str(given))
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def one_of(name: str, given: object, known: Sequence[object]) -> None:
    """Refuse what is not among the known values."""
    if given not in known:
        expected = ", ".join(str(each) for each in known if each is not None)
        raise InputError(f"{name}: {given!r}, expected one of: {expected}")


def within(name: str, given: float, least: float, most: float | None = None) -> None:
    """Refuse a number outside of a range, bounds included."""
    if not least <= given or (most is not None and given > most):
        upper = "" if most is None else f" and {most} at most"
        raise InputError(f"{name}: {given!r}, expected {least} at least{upper}")


def above(name: str, given: float, below: float | None = None) -> None:
    """Refuse a number that is not above 0, or not below a bound."""
    if not given > 0 or (below is not None and not given < below):
        upper = "" if below is None else f" and below {below}"
        raise InputError(f"{name}: {given!r}, expected a number above 0{upper}")
