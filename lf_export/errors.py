"""The errors that a user sees: what, where, what was expected, and the exit status of each class."""

from collections.abc import Sequence
from typing import ClassVar, Self


class ExportError(Exception):
    """An error with a message for the user, an optional hint, and an exit status.

    `message` says what is wrong, where, and what was expected: lower case, no full stop. `hint` is the
    command or the change that mends it. `lf_export.cli` shows both in one place.
    """

    status: ClassVar[int] = 5

    def __init__(self, message: str, hint: str | None = None) -> None:
        # names from a foreign file may hold half a surrogate pair, which no terminal can print
        message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(message)
        self.message = message
        self.hint = hint

    @classmethod
    def of(cls, problems: Sequence[str], hint: str | None = None) -> Self:
        """One error for several problems, a line each."""
        return cls("\n".join(problems), hint)


class InputError(ExportError):
    """A wrong recipe, model, adapter or data (exit status 3)."""

    status: ClassVar[int] = 3


class MissingError(ExportError):
    """A package, device or file that is not there, with the command that installs it (exit status 4)."""

    status: ClassVar[int] = 4


class StepError(ExportError):
    """A step that failed: disk full, killed, verification failed (exit status 5)."""

    status: ClassVar[int] = 5
