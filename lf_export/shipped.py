"""Where the files that ship with lf-export lie: recipes and calibration data."""

import difflib
from pathlib import Path

from lf_export.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str, name: str = "") -> Path:
    """The path of a shipped file or folder; `kind` is "recipes" or "calibration".

    In an installed wheel these lie in the package's `_data` folder, in a clone at the top of the tree.

    Raises:
        InputError: nothing of that name ships.
    """
    roots = [root for root in (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind) if root.is_dir()]
    for root in roots:
        path = root / name
        if path.exists() and path.resolve().is_relative_to(root):
            return path
    known = [path.relative_to(root).as_posix() for root in roots for path in root.rglob("*") if path.is_file()]
    close = difflib.get_close_matches(name, known, n=1)
    near = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"nothing named {name!r} ships under {kind}/{near}")
