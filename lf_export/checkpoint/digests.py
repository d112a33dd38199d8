"""Digests of files, read once: the sha256 of the whole, and a checksum of each tensor that says where damage lies."""

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from lf_export.checkpoint.regions import HEADER, Region, regions_of
from lf_export.errors import ExportError, InputError
from lf_export.provenance import MANIFEST_NAME, digest_of, read_manifest

_CHUNK = 4 << 20

FileFacts = dict[str, Any]
"""`bytes` and `sha256` of a file; of a weight file also `parts`: the header's length and the CRC-32 of each region."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The CRC-32 of each region of a file, eight digits each, the header's first."""

    header: int
    checksums: str

    @classmethod
    def of(cls, value: Any) -> "_Parts | None":
        """What a manifest says; None where it says nothing that can be used."""
        if not isinstance(value, Mapping):
            return None
        header, checksums = value.get("header_bytes"), value.get("crc32")
        usable = type(header) is int and isinstance(checksums, str) and len(checksums) >= 8
        return cls(header, checksums) if usable and isinstance(header, int) and isinstance(checksums, str) else None


def file_facts(path: Path, *, parts: bool = False) -> FileFacts:
    """Size and sha256 of a file; with `parts` also the checksums of its tensors, from the same reading.

    Raises:
        InputError: the file cannot be read.
    """
    regions: list[Region] = []
    if parts:
        try:
            regions = regions_of(path)
        except InputError:
            regions = []  # a file that is no such thing has a digest all the same
    digest = hashlib.sha256()
    size = 0
    checksums: list[str] = []
    try:
        with path.open("rb") as file:
            for region in regions:
                value = 0
                for chunk in _chunks(file.read, region.stop - region.start):
                    digest.update(chunk)
                    value = crc32(chunk, value)
                    size += len(chunk)
                checksums.append(f"{value:08x}")
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    facts: FileFacts = {"bytes": size, "sha256": digest.hexdigest()}
    if regions:
        facts["parts"] = {"header_bytes": regions[0].stop, "crc32": "".join(checksums)}
    return facts


def _chunks(read: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    while count > 0 and (chunk := read(min(_CHUNK, count))):
        count -= len(chunk)
        yield chunk


def where_changed(path: Path, known: FileFacts) -> str:
    """Where a file differs from what its manifest says of it: its size, its header, the names of tensors."""
    size = path.stat().st_size
    if size != known.get("bytes"):
        return f"{size:,} bytes, {known.get('bytes'):,} were written"
    parts = _Parts.of(known.get("parts"))
    if parts is None:
        return f"its {size:,} bytes have another sha256"
    with path.open("rb") as file:
        value = 0
        for chunk in _chunks(file.read, parts.header):
            value = crc32(chunk, value)
    if f"{value:08x}" != parts.checksums[:8]:
        return f"in its header (the first {parts.header:,} bytes)"
    try:
        regions = regions_of(path)
    except ExportError as error:
        return f"its header does not read: {error.message}"
    found = []
    with path.open("rb") as file:
        for number, region in enumerate(regions):
            file.seek(region.start)
            value = 0
            for chunk in _chunks(file.read, region.stop - region.start):
                value = crc32(chunk, value)
            if f"{value:08x}" != parts.checksums[8 * number : 8 * number + 8] and region.name != HEADER:
                found.append(region.name)
    if not found:
        return f"its {size:,} bytes have another sha256"
    shown = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return f"in {'tensor' if len(found) == 1 else 'tensors'} {shown}"


def listed(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below a folder by its relative name, in the order of names; links are given as they are.

    Raises:
        InputError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        base = Path(root)
        links = [name for name in folders if (base / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = base / name
            yield path.relative_to(folder).as_posix(), path.lstat()


def folder_facts(
    folder: Path, *, without: Collection[str] = (), threads: int = 1, hidden: bool = False
) -> dict[str, FileFacts]:
    """Size, digest and checksums of every regular file of an artifact, by name; not of its manifest.

    Args:
        folder: the artifact, finished but for its manifest.
        without: first parts of names that do not belong to it.
        threads: how many files are read at a time.
        hidden: whether files that begin with a dot count.
    """
    names = [
        name
        for name, status in listed(folder)
        if stat.S_ISREG(status.st_mode)
        and name != MANIFEST_NAME
        and name.split("/")[0] not in without
        and (hidden or not any(part.startswith(".") for part in name.split("/")))
    ]
    return _all(folder, names, threads, parts=True)


def input_facts(folder: Path, names: Iterable[str], threads: int = 1) -> dict[str, Any]:
    """What a manifest says of a folder that a step read: its files' sizes and digests, and one digest over these.

    A digest that the folder's own manifest holds is taken where the file has the size that it says and was not written
    after the manifest; else the file is read. `lf-export verify` reads them all.
    """
    wanted = sorted(set(names))
    known = _known(folder)
    missing = [name for name in wanted if name not in known]
    found = {name: known[name] for name in wanted if name in known} | _all(folder, missing, threads, parts=False)
    files = {name: {key: found[name][key] for key in ("bytes", "sha256")} for name in wanted}
    return {"digest": digest_of({name: facts["sha256"] for name, facts in files.items()}), "files": files}


def _known(folder: Path) -> dict[str, FileFacts]:
    """The digests in the manifest of a folder of ours, of files that have not been written since."""
    try:
        made = read_manifest(folder)
        written = (folder / MANIFEST_NAME).stat().st_mtime_ns
    except (ExportError, OSError):
        return {}
    files = (made or {}).get("files")
    found = {}
    for name, facts in files.items() if isinstance(files, dict) else ():
        try:
            status = (folder / name).stat()
        except (OSError, ValueError):
            continue
        if (
            isinstance(facts, dict)
            and isinstance(facts.get("sha256"), str)
            and facts.get("bytes") == status.st_size
            and status.st_mtime_ns <= written
        ):
            found[name] = facts
    return found


def _all(folder: Path, names: list[str], threads: int, *, parts: bool) -> dict[str, FileFacts]:
    if threads <= 1 or len(names) <= 1:
        return {name: file_facts(folder / name, parts=parts) for name in names}
    with ThreadPoolExecutor(threads) as pool:  # hashing leaves the interpreter's lock alone
        facts = pool.map(lambda name: file_facts(folder / name, parts=parts), names)
        return dict(zip(names, facts, strict=True))
