"""Answers and distributions of baselines, kept from run to run: the next artifact costs one pass, not two.

An entry is a folder named by the digest of all that its content follows from. It is written through `staging`, so it
is there whole or not at all, and its files are checked by their digests whenever it is read. What cannot be kept is
said, what cannot be read is measured again: a cache never ends a bench.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

from lf_export.checkpoint.digests import folder_facts, input_facts, listed
from lf_export.checkpoint.staging import clear_leftovers, staging
from lf_export.errors import ExportError, StepError
from lf_export.progress import say
from lf_export.provenance import (
    MANIFEST_NAME,
    canonical_json,
    digest_of,
    machine,
    manifest,
    sha256_file,
    versions,
    write_manifest,
)
from lf_export.report.card import CARD_NAME
from lf_export.steps.recorded import Recorded
from lf_export.steps.verify import verify_folder
from lf_export.steps.workload import Workload

VARIABLE = "LF_EXPORT_CACHE"
MOST_BYTES = 2_000_000_000
"""What all entries take together at the most; those that were used longest ago go first."""

KIND = "baseline-answers"
_ANSWERS, _DISTRIBUTIONS = "answers.json", "distributions"
# The code that decides what a baseline answers, below the package's folder.
_CODE = ("runtimes/*.py", "metrics/kept.py", "metrics/fidelity.py", "steps/chat.py", "steps/recorded.py")


def cache_folder() -> Path | None:
    """Where baselines are kept: `$LF_EXPORT_CACHE`, nowhere where that is empty, else below the user's cache."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root and os.path.isabs(root) else Path.home() / ".cache") / "lf-export" / "baselines"  # noqa: PTH117


def baseline_key(baseline: Path, runtime: str, dialect: str, threads: int, workload: Workload) -> str:
    """The digest of all that a baseline's answers follow from: files, items, dialect, options, versions, processor.

    Raises:
        InputError: a file of the baseline cannot be read.
    """
    names = [name for name, _ in listed(baseline) if name not in {MANIFEST_NAME, CARD_NAME} and _plain(baseline / name)]
    here = machine()
    return digest_of(
        {
            "baseline": input_facts(baseline, names, threads)["digest"],
            "runtime": [runtime, threads],
            "dialect": dialect,
            "groups": [
                [[prompt.item.id, prompt.ids, prompt.full_ids] for prompt in group.prompts] for group in workload.groups
            ],
            "compared": sorted(workload.compared),
            "chat": [[ids, counted.tolist()] for ids, counted in workload.chat],
            "max_new_tokens": workload.max_new_tokens,
            "chat_asked": [
                [prompt.item.id, prompt.ids, workload.chat_tokens]
                for group in workload.chat_groups
                for prompt in group.prompts
            ],
            "versions": versions(),
            "code": _code(),
            "processor": [here[name] for name in ("system", "processor", "architecture", "instruction_sets")],
        }
    )


class BaselineCache:
    """Entries in `folder`, of at most `most_bytes` together; where `folder` is None nothing is kept."""

    def __init__(self, folder: Path | None, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most_bytes

    def read(self, key: str, distributions: Path) -> Recorded | None:
        """What was kept under `key`, its distributions put into that folder; None where it has to be measured."""
        if self._folder is None or not (self._folder / key).is_dir():
            return None
        entry = self._folder / key
        try:
            found = _read(entry, distributions)
        except (ExportError, OSError, ValueError, KeyError, TypeError) as error:
            say(f"what was kept of the baseline is damaged and measured again: {error}")
            shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # of a folder that may only be read
            os.utime(entry)
        say(f"answers and distributions of the baseline are kept from an earlier run: {entry}")
        return found

    def write(self, key: str, recorded: Recorded, distributions: Path) -> None:
        """Keep `recorded` and the files in the folder `distributions`; says why where it cannot."""
        if self._folder is None or (self._folder / key).exists():
            return
        try:
            answers = canonical_json(recorded.to_json()).encode()
            size = len(answers) + sum(path.stat().st_size for path in distributions.iterdir())
            self._make_room(size)
            with staging(self._folder / key) as folder:
                (folder / _ANSWERS).write_bytes(answers)
                shutil.copytree(distributions, folder / _DISTRIBUTIONS)
                write_manifest(folder, manifest(KIND, files=folder_facts(folder)))
        except (ExportError, OSError, ValueError) as error:
            say(f"the baseline's answers are not kept for the next run: {error}")

    def _make_room(self, size: int) -> None:
        """Make the folder, and remove the entries used longest ago until `size` bytes fit.

        Raises:
            StepError: they never do, or not onto the disk.
        """
        if self._folder is None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # answers to items that may be confidential
        for path in self._folder.glob(".*.staging-*"):
            with contextlib.suppress(ExportError):  # of another run that is writing it
                clear_leftovers(self._folder / path.name[1:].partition(".staging-")[0])
        if size > self._most:
            raise StepError(f"they take {size:,} bytes, the cache {self._most:,} at the most")
        entries = [path for path in self._folder.iterdir() if (path / MANIFEST_NAME).is_file()]
        entries.sort(key=lambda path: path.stat().st_mtime_ns)
        sizes = [sum(status.st_size for _, status in listed(path)) for path in entries]
        while entries and sum(sizes) + size > self._most:
            shutil.rmtree(entries.pop(0))
            sizes.pop(0)
        # The run itself has reports to write yet.
        if shutil.disk_usage(self._folder).free < 2 * size:
            raise StepError(f"{self._folder}: {size:,} bytes would take more than half of what is free")


def _read(entry: Path, distributions: Path) -> Recorded:
    checked = verify_folder(entry)
    if checked.problems or checked.kind != KIND:
        raise StepError(str(checked.problems[0]) if checked.problems else f"{entry}: it is of kind {checked.kind}")
    recorded = Recorded.of_json(json.loads((entry / _ANSWERS).read_text(encoding="utf-8")))
    if (entry / _DISTRIBUTIONS).is_dir():
        shutil.copytree(entry / _DISTRIBUTIONS, distributions, dirs_exist_ok=True)
    return recorded


def _plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _code() -> dict[str, str]:
    root = Path(__file__).parents[1]
    return {path.relative_to(root).as_posix(): sha256_file(path) for pattern in _CODE for path in root.glob(pattern)}
