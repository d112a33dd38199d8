"""What a command line names to be judged: folders, files and servers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lf_export.errors import InputError
from lf_export.runtimes.endpoint import Endpoint
from lf_export.runtimes.endpoint_settings import PREFIX, name_of
from lf_export.steps.bench import BASELINE, named_artifacts
from lf_export.steps.measure_endpoint import ServedArtifact


def judged_artifacts(given: Sequence[str], **settings: Any) -> dict[str, Path | ServedArtifact]:
    """Artifacts by name, in the order given: paths, and `[NAME=]endpoint:URL` with `settings` for every server.

    Raises:
        InputError: an artifact is not there, a URL is none, or two have one name.
    """
    paths = named_artifacts([Path(each) for each in given if _server(each) is None])
    by_path = {path: name for name, path in paths.items()}
    found: dict[str, Path | ServedArtifact] = {}
    for each in given:
        server = _server(each)
        if server is None:
            found[by_path[Path(each)]] = Path(each)
            continue
        url, name = server[1], server[0] or name_of(server[1])
        if name in found or name in paths or name == BASELINE:
            message = f"{each}: the name {name!r} is taken, expected servers with names of their own"
            raise InputError(message, f"NAME={PREFIX}{url}")
        found[name] = ServedArtifact(Endpoint(url, **settings))
    return found


def _server(given: str) -> tuple[str, str] | None:
    """The name, or "", and the URL of a server; None where `given` is a path."""
    name, mark, url = given.partition(PREFIX)
    if not mark or (name and not name.endswith("=")) or "/" in name:
        return None
    return name.removesuffix("="), url
