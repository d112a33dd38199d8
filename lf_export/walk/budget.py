"""How much memory the activations between two layers may take."""

import re
from pathlib import Path

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", re.IGNORECASE)

# Of what is available at the start: the weights of a layer, its moments and the formats' work need the rest.
_SHARE = 4
# Where the system does not say what is available.
_UNKNOWN = 1 << 30


def parse_size(text: str) -> int:
    """Bytes of a size such as `4GB`, `4G`, `512MB`, `1.5GiB` or `4000000`; units of 1,000 unless they have an i.

    Raises:
        ValueError: the text is no size, or is less than a byte.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size, expected one such as 4GB or 512MB")
    return size


def default_budget(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """A quarter of the bytes that are available now: to the machine, and to the container where it has a limit."""
    return available_memory(meminfo, group) // _SHARE


def available_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """The bytes that are available now, to the machine and to the container; 4 GiB where neither tells."""
    available = [free for free in (_machine(meminfo), _container(group)) if free is not None]
    return min(available, default=_SHARE * _UNKNOWN)


def _machine(meminfo: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _container(group: Path) -> int | None:
    """What is left of the limit of control groups (version 2); file pages that the kernel can drop count as used."""
    try:
        limit = (group / "memory.max").read_text(encoding="utf-8").strip()
        used = int((group / "memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - used) if limit.isdigit() else None
