"""What a manifest holds, key by key: the reference page is made of it, and a manifest with another key is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ARTIFACTS = ("gptq", "awq", "gguf", "onnx")
KINDS = ("merged", "calibration", *ARTIFACTS, "bench", "baseline-answers")


@dataclass(frozen=True)
class Key:
    """One key of a manifest.

    Attributes:
        kinds: the kinds of manifest that have it.
        text: what it holds.
    """

    kinds: tuple[str, ...]
    text: str


KEYS: Mapping[str, Key] = {
    "schema": Key(KINDS, "version of this form"),
    "kind": Key(KINDS, "what the folder is"),
    "versions": Key(KINDS, "lf-export, Python and the libraries that shape an artifact"),
    "machine": Key(KINDS, "processor, its vector instructions, cores, memory, system; no name and no folder"),
    "digest": Key(KINDS, "SHA-256 of the manifest's own text without this key"),
    "files": Key(KINDS, "each file's bytes and SHA-256, and a CRC-32 of each tensor"),
    "inputs": Key(
        ("merged", "calibration", *ARTIFACTS, "bench"),
        "bytes and SHA-256 of every file that went in: base, adapters, model, data; of a bench, the manifests' digests",
    ),
    "options": Key(("merged", "calibration", *ARTIFACTS), "what was asked for; files by name alone"),
    "base": Key(("merged",), "what identifies the base at a glance: its config's and its layout's digests, its shards"),
    "merge": Key(
        ("merged",), "adapters and weights, the tensors that changed, the proof, logits where they were compared"
    ),
    "calibration": Key(
        ("calibration", *ARTIFACTS),
        "the audit: digest, samples, tokens by class, functions, what was dropped; no text",
    ),
    "artifact": Key(ARTIFACTS, "what the format did: errors by linear or tensor, types, notes"),
    "card": Key(("merged", *ARTIFACTS), "language, licence and base model, for the model card"),
    "source": Key(ARTIFACTS, "the manifest of the merged model that it was made of; null where the model is not ours"),
    "verdict": Key(("bench",), "PASS, FAIL or INCONCLUSIVE"),
}


def unknown_keys(kind: str, keys: Iterable[str]) -> list[str]:
    """Those of `keys` that a manifest of this kind does not have."""
    return [key for key in keys if key not in KEYS or kind not in KEYS[key].kinds]
