"""A model folder, opened by its headers: which tensors there are, in which file, at which bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_export.checkpoint.header import TensorInfo, read_header
from lf_export.checkpoint.json_file import read_object
from lf_export.errors import InputError

if TYPE_CHECKING:  # headers are read without torch, so that `inspect` starts at once
    import torch

__all__ = ["Checkpoint", "TensorInfo", "bounded", "contained", "open_checkpoint", "open_shards", "read_object"]

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
EMBEDDINGS = ("embed_tokens", "wte")
"""The last parts of the names that embeddings go by."""

HEAD = "lm_head"
"""The name of the output layer."""

_SHOWN = 12


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its tensors by name, its config, and its weight files in the order of their names.

    `index` is the parsed index where the weights are sharded, else None. Tensors that lie in a shard and that the
    index does not name are not part of the checkpoint. One that is `planned` has shapes alone, no weights.
    """

    root: Path
    tensors: Mapping[str, TensorInfo]
    config: dict[str, Any]
    shards: tuple[Path, ...]
    index: dict[str, Any] | None = None
    metadata: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    planned: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def tied(self) -> bool:
        """Whether the output layer shares the weight of the embedding (and so has no tensor of its own).

        A config that does not say so leaves it to its model's default: then the missing tensor says it.
        """
        return bool(self.config.get("tie_word_embeddings", True)) and f"{HEAD}.weight" not in self.tensors

    @property
    def embedding(self) -> str | None:
        """The name of the embedding's weight; None where it is not one of the known names."""
        endings = tuple(f".{name}.weight" for name in EMBEDDINGS)
        found = [name for name in self.tensors if f".{name}".endswith(endings)]
        return found[0] if len(found) == 1 else None

    def relative(self, file: Path) -> str:
        """The name of one of its weight files as an index writes it."""
        return file.relative_to(self.root).as_posix()

    def info(self, name: str) -> TensorInfo:
        """Where the tensor `name` lies.

        Raises:
            InputError: the checkpoint has no such tensor.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise InputError(f"{self.root}: no tensor {name!r} in this checkpoint") from None

    def read(self, name: str, dtype: "torch.dtype | None" = None, rows: slice | None = None) -> "torch.Tensor":
        """The tensor `name`, or some of its rows, read from disk into memory of its own; cast to `dtype` if given.

        Raises:
            InputError: there is no such tensor, or its file has changed or cannot be read.
        """
        from lf_export.checkpoint.reader import read  # noqa: PLC0415 (torch, only when a weight is wanted)

        return read(self.info(name), dtype, rows)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a model folder (config.json with model.safetensors or a sharded index) by its headers alone.

    Raises:
        InputError: it is not such a folder, a file is missing, truncated or lies about its content, or the index
            leaves the folder.
    """
    root = Path(path)
    if not root.is_dir():
        hint = "give the folder that holds config.json" if root.exists() else None
        raise InputError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}", hint)
    config = read_object(contained(root, "config.json", "a model folder has a config.json"))
    single = root / SINGLE_NAME
    if single.exists() or single.is_symlink():
        header = read_header(contained(root, SINGLE_NAME))
        tensors = {info.name: info for info in header.tensors}
        return Checkpoint(root, tensors, config, (header.file,), None, {header.file: header.metadata})
    if (root / INDEX_NAME).exists():
        shards = open_shards(root, INDEX_NAME)
        return Checkpoint(root, shards.tensors, config, shards.files, shards.index, shards.metadata)
    raise _no_weights(root)


def _no_weights(root: Path) -> InputError:
    names = sorted(path.name for path in root.iterdir())
    pickles = [name for name in names if name.endswith(_PICKLES) or name.endswith(".bin.index.json")]
    if pickles:
        return InputError(
            f"{root}: the weights are pickles ({', '.join(pickles[:3])}), safetensors were expected",
            "a pickle can run code when it is loaded, so none is; convert it with "
            "safetensors.torch.save_file, or download the safetensors revision",
        )
    shards = [name for name in names if name.endswith(".safetensors")]
    if shards:
        return InputError(f"{root}: {', '.join(shards[:3])} without {SINGLE_NAME} or {INDEX_NAME}")
    return InputError(f"{root}: no weights: expected {SINGLE_NAME} or {INDEX_NAME}")


@dataclass(frozen=True)
class Shards:
    """Tensors that an index spreads over files, in the order of the index."""

    index: dict[str, Any]
    files: tuple[Path, ...]
    tensors: dict[str, TensorInfo]
    metadata: dict[Path, dict[str, str]]


def open_shards(root: Path, index_name: str) -> Shards:
    """Read a sharded index and the headers of the files that it names.

    Raises:
        InputError: a file is missing, a pickle or damaged, or does not hold what the index says.
    """
    path = contained(root, index_name)
    index = read_object(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise InputError(f"{path}: expected a weight_map from tensor names to file names")
    headers, problems = {}, []
    for name in sorted(set(weight_map.values())):
        try:
            if name.endswith(_PICKLES):
                raise InputError(f"{path}: {name} is a pickle, a .safetensors file was expected")  # noqa: TRY301
            headers[name] = read_header(contained(root, name, f"{index_name} names it"))
        except InputError as error:
            problems.append(error)
    if problems:
        raise InputError.of(
            bounded([problem.message for problem in problems]),
            next((problem.hint for problem in problems if problem.hint), None),
        )
    held = {name: {info.name: info for info in header.tensors} for name, header in headers.items()}
    absent = [
        f"{path}: {tensor} is not in {shard}" for tensor, shard in weight_map.items() if tensor not in held[shard]
    ]
    if absent:
        raise InputError.of(bounded(absent), "the index belongs to other weights, or a shard was replaced")
    tensors = {tensor: held[shard][tensor] for tensor, shard in weight_map.items()}
    files = tuple(header.file for header in headers.values())
    return Shards(index, files, tensors, {header.file: header.metadata for header in headers.values()})


def bounded(lines: list[str]) -> list[str]:
    """The first lines and a count of the rest: an error that fits a screen."""
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"… and {rest:,} more"]


def contained(root: Path, name: str, why: str = "") -> Path:
    """The path of `root`/`name`, once it is certain that it exists and does not lead out of `root`.

    A snapshot of the Hugging Face cache is made of links into the `blobs` folder beside its `snapshots`: these are
    followed, no other link that leaves the folder is.

    Raises:
        InputError: the name is absolute, has "..", leads outside through a link, or names no file.
    """
    if not name or name.startswith("/") or "\0" in name or ".." in Path(name).parts:
        raise InputError(f"{root}: {name!r} leads outside this folder, the name of a file in it was expected")
    path = root / name
    try:
        real = path.resolve(strict=True)
        top = root.resolve(strict=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file" + (f" ({why})" if why else "")) from None
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, half a character
        raise InputError(f"{root}: {name!r} cannot be read: {error}") from error
    if not real.is_file() and not real.is_dir():  # a pipe would be waited for
        raise InputError(f"{path}: not a regular file")
    homes = [top, top.parent.parent / "blobs"] if top.parent.name == "snapshots" else [top]
    if not any(real.is_relative_to(home) for home in homes):
        raise InputError(
            f"{path}: a link that leads outside this folder (to {real})", "copy the file itself into the folder"
        )
    return path
