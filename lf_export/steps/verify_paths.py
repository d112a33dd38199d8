"""The verify step: folders and runs, their files, their chain, and on demand a sample of their weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lf_export.provenance import MANIFEST_NAME
from lf_export.steps.chain import check_chain
from lf_export.steps.sign import Trust
from lf_export.steps.verify import Verified, artifact_folders, verify_folder

_SIGNED = frozenset({"gptq", "awq", "gguf", "onnx"})


@dataclass(frozen=True)
class Deep:
    """How deep: the model that weights are held against, how many tensors, which, with how many threads."""

    model: Path | None = None
    sample: int = 16
    seed: int = 0
    threads: int = 1


def verify_paths(
    paths: Sequence[Path], inputs: Sequence[Path] = (), trust: Trust | None = None, deep: Deep | None = None
) -> list[Verified]:
    """Check folders of ours; what is wrong is in the results.

    Args:
        paths: artifacts, or runs.
        inputs: what went in, to compare.
        trust: whose signature is believed; None: signatures are named and not checked. In a run folder only the
            quantized artifacts have to be signed.
        deep: also check weights.

    Raises:
        InputError: nothing of ours is there, or an input belongs to none of it.
        MissingError: something to check with is not installed.
    """
    results: list[Verified] = []
    for path in paths:
        found = artifact_folders(path)
        run = found != [path] and not (len(found) == 1 and (path.name == MANIFEST_NAME))
        checked = []
        for folder in found:
            believed = trust if not run or _may_be_signed(folder) else None
            checked.append(verify_folder(folder, believed))
        check_chain(checked, (), siblings=True)
        if deep is not None:
            _deep(checked, deep)
        results += checked
    if inputs:
        check_chain(results, inputs, siblings=False)
    return results


def _may_be_signed(folder: Path) -> bool:
    from lf_export.provenance import read_manifest  # noqa: PLC0415

    try:
        return (read_manifest(folder) or {}).get("kind") in _SIGNED
    except Exception:  # noqa: BLE001 - told by `verify_folder`
        return False


def _deep(checked: Sequence[Verified], deep: Deep) -> None:
    from lf_export.steps.deep import check_weights  # noqa: PLC0415 - heavy

    merged = deep.model or next((each.path for each in checked if each.kind == "merged"), None)
    for each in checked:
        if each.kind in _SIGNED:
            check_weights(each, merged, sample=deep.sample, seed=deep.seed, threads=deep.threads)
