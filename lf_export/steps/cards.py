"""Model cards: what an artifact's card inherits from base and adapters, and its results after a bench."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lf_export.checkpoint.carry import licence_files
from lf_export.progress import say
from lf_export.provenance import read_manifest
from lf_export.report.card import CARD_NAME, CARRIED, artifact_card, is_untouched
from lf_export.report.model import ArtifactReport, Report

_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_LARGEST_CARD = 1 << 20
# How licence files begin, and what the Hub calls the licence.
_LICENCES = (
    ("apache license", "apache-2.0"),
    ("mit license", "mit"),
    ("llama 2 community license", "llama2"),
    ("llama 3.3 community license", "llama3.3"),
    ("llama 3.2 community license", "llama3.2"),
    ("llama 3.1 community license", "llama3.1"),
    ("meta llama 3 community license", "llama3"),
    ("gemma terms of use", "gemma"),
)
_BEGINNING = 2_000


def origin(model: Path, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the card of an artifact of `model` says of language, licence and base model, for its manifest.

    Args:
        model: the folder that is quantized.
        source: its own manifest where it was merged by us.
    """
    known = dict(source.get("card") or {}) if source else inherited([model], [])
    if "license" not in known:
        known |= _licence(model)
    return known


def inherited(folders: Sequence[Path], named: Sequence[str]) -> dict[str, Any]:
    """What the cards in `folders` say that holds for what is made of them; the first that says something counts.

    Args:
        folders: the base, then the adapters.
        named: what the adapters call their base; taken where it reads as a name on the Hub and is no folder here.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        for key, value in _front_matter(folder / CARD_NAME).items():
            if key != "base_model":
                found.setdefault(key, value)
    bases = [name for name in named if _HUB_ID.match(name) and not Path(name).exists()]
    return found | ({"base_model": bases[0]} if bases else {})


def write_results(path: Path, artifact: ArtifactReport, report: Report) -> None:
    """Write the results into the card of the artifact at `path`, a folder of ours or a file in one.

    A card that someone has edited stays as it is, and so does a folder that cannot be written: the results are in the
    report, and this is said.
    """
    folder = path if path.is_dir() else path.parent
    made = read_manifest(folder) or {}
    card = folder / CARD_NAME
    if not {"calibration", "options", "files"} <= made.keys() or not card.is_file():
        return
    try:
        before, after = card.read_text(encoding="utf-8"), artifact_card(artifact.name, made, artifact, report)
        if not is_untouched(before):
            say(f"{card}: was edited, and stays as it is")
        elif before != after:
            staged = folder / f".{CARD_NAME}.staging"
            staged.write_text(after, encoding="utf-8")
            staged.replace(card)
    except (OSError, UnicodeDecodeError) as error:
        say(f"{card}: the results are not in it: {error}")


def _front_matter(path: Path) -> dict[str, Any]:
    """The metadata of a card that is worth carrying; nothing of a card that is absent or does not read."""
    try:
        if path.stat().st_size > _LARGEST_CARD:
            return {}
        match = _FRONT.match(path.read_text(encoding="utf-8"))
        value = yaml.safe_load(match[1]) if match else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {key: value[key] for key in CARRIED if isinstance(value.get(key), str) or _is_names(value.get(key))}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _licence(folder: Path) -> dict[str, str]:
    """The licence by the beginning of the first licence file; `other` with its file where nobody knows it."""
    for path in licence_files(folder):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = " ".join(file.read(_BEGINNING).lower().split())
        except OSError:
            continue
        known = next((name for words, name in _LICENCES if words in text), None)
        return (
            {"license": known} if known else {"license": "other", "license_name": "see-file", "license_link": path.name}
        )
    return {}
