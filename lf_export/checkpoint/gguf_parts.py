"""How the parts of a GGUF that is split are named: `NAME-00001-of-00003.gguf`, as llama.cpp finds them."""

import re
from pathlib import Path

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")

MOST_PARTS = 65_535
"""`split.no` and `split.count` have 16 bits."""


def part_name(stem: str, number: int, count: int) -> str:
    """The name of part `number`, from 1, of `count` (llama.cpp's `llama_split_path`)."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def is_later_part(path: Path) -> bool:
    """Whether `path` is named as a part after the first, which no runtime loads by itself."""
    found = _PART.match(path.name)
    return found is not None and int(found[2]) > 1


def first_part(path: Path) -> Path:
    """The first part of the file that `path` is named as a part of; `path` itself where it is no part."""
    found = _PART.match(path.name)
    return path if found is None else path.with_name(part_name(found[1], 1, int(found[3])))


def parts_of(path: Path) -> list[Path]:
    """Every part of the file whose first part is `path`, in order, whether it is there or not; else `path` alone."""
    found = _PART.match(path.name)
    if found is None or int(found[2]) != 1:
        return [path]
    return [path.with_name(part_name(found[1], number, int(found[3]))) for number in range(1, int(found[3]) + 1)]
