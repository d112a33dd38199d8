"""What a command says, kept instead of shown."""


class Said:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, *_: object) -> "Said":
        """Keep nothing."""
        return self

    def advance(self, *_: object) -> None:
        """Keep nothing."""

    def finish(self, *_: object) -> None:
        """Keep nothing."""

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)
