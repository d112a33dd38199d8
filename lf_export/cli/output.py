"""What a command prints on standard output when it is done."""

import json
from typing import Any

import click


def emit(facts: Any, text: str, *, as_json: bool) -> None:
    """Print `facts` as JSON for a pipeline, or `text` for a person."""
    click.echo(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else text)
