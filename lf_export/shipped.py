"""Where the files that ship with lf-export lie: recipes and calibration data."""

from pathlib import Path

from lf_export.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str, name: str = "") -> Path:
    """The path of a shipped file or folder; `kind` is "recipes" or "calibration".

    In an installed wheel these lie in the package's `_data` folder, in a clone at the top of the tree.

    Raises:
        InputError: nothing of that name ships.
    """
    for root in (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind):
        path = root / name
        if path.exists():
            return path
    raise InputError(f"nothing named {name!r} ships under {kind}/")
