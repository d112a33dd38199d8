"""What ran, for the end of a benchmark's table and for its JSON."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any


def environment(*packages: str) -> dict[str, Any]:
    """The versions of packages, and the machine."""
    return {
        "versions": {name: metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }


def show_data(result: Mapping[str, Any]) -> None:
    """Say what was calibrated with and what was judged."""
    data = result["data"]
    print(
        f"\n{result['model']}: {data['samples']} conversations, {data['tokens']:,} tokens; "
        f"{data['heldout_call_tokens']:,} held-out call tokens"
    )


def show_environment(result: Mapping[str, Any], more: str = "") -> None:
    """Say with which versions, on which machine, with how many threads; `more` follows these."""
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"{result['machine']}, {result['threads']} threads{more}")
