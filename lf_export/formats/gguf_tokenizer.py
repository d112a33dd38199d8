"""A Hugging Face tokenizer as llama.cpp needs it: token list with types, merges or scores, and a pre-tokenizer's name.

llama.cpp has the pre-tokenizers' regular expressions compiled in and chooses one by name (`tokenizer.ggml.pre`), so a
tokenizer is written only when its rules are among those that were compared with llama.cpp's; a guess would give other
token ids without a word.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from lf_export.checkpoint.json_file import read_object
from lf_export.errors import InputError

_SPACE = "▁"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# Split's regular expression → llama.cpp's name, and whether a whole word that is a token skips the merges there.
_SPLITS = {_LLAMA3: ("llama-bpe", True), _QWEN2: ("qwen2", False)}
_KNOWN = "known are gpt-2, smollm (single digits, then ByteLevel), llama-bpe (Llama 3), qwen2 and SentencePiece BPE"

# What Metaspace does and llama.cpp cannot: it puts a space before the text and before what follows a special token.
_STARTS = "a text that starts with a space gets a second one in llama.cpp"
_PREFIX_NOTES = {
    "first": (_STARTS, "what follows a special token gets a space in llama.cpp, none in the tokenizer"),
    "always": (_STARTS,),
}


class TokenType(IntEnum):
    """What a token is (enum llama_token_type)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer in llama.cpp's terms.

    Attributes:
        model: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: the text of each id, `vocab_size` of them.
        types: what each is.
        merges: for `gpt2`, in order.
        scores: for `llama`, higher merges first.
        special: `bos`, `eos`, `eot`, `unknown`, `padding` → id, those that there are.
        add_bos: whether the tokenizer's own template starts a text with BOS.
        add_eos: whether it ends a text with EOS.
        space_prefix: for `llama`, whether a space is put before a text.
        chat_template: the Jinja template, if there is one.
        notes: where llama.cpp gives other token ids than the tokenizer.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    space_prefix: bool = False
    chat_template: str | None = None
    notes: tuple[str, ...] = ()


def read_tokenizer(folder: Path, vocab_size: int) -> GgufTokenizer:
    """Read `tokenizer.json` and its companions in `folder` for a model with `vocab_size` rows of embeddings.

    Raises:
        InputError: a file is missing or broken, the tokenizer is of a kind that llama.cpp would tokenize otherwise,
            or it has more tokens than the model has rows.
    """
    path = folder / "tokenizer.json"
    data = _load(path)
    settings = _load(folder / "tokenizer_config.json", optional=True)
    model = data.get("model") or {}
    if model.get("type") != "BPE":
        raise InputError(f"{path}: the tokenizer model is {model.get('type')!r}, expected BPE")
    added = {token["content"]: token for token in data.get("added_tokens") or []}
    ids = {**model.get("vocab", {}), **{text: token["id"] for text, token in added.items()}}
    highest = max(ids.values(), default=-1)
    if highest >= vocab_size:
        message = f"{path}: the tokenizer has ids up to {highest}, the model has {vocab_size} rows of embeddings"
        raise InputError(message, "resize the embeddings of the model, or take the tokenizer that belongs to it")
    sentencepiece = bool(model.get("byte_fallback"))
    scheme = _sentencepiece_prefix(path, data) if sentencepiece else ""

    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [TokenType.UNUSED] * vocab_size
    unknown = model.get("unk_token")
    for text, index in ids.items():
        tokens[index] = text
        types[index] = _type_of(text, added, unknown if sentencepiece else None, sentencepiece)
    merges = _merges(path, model)
    begin, end = _template_ends(data.get("post_processor"))
    special = _special_ids(folder, settings, ids)
    return GgufTokenizer(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else _byte_level_rules(path, data, model),
        tokens=tuple(tokens),
        types=tuple(types),
        merges=() if sentencepiece else tuple(" ".join(map(_hide_space, pair)) for pair in merges),
        scores=_scores(tokens, merges) if sentencepiece else (),
        special=special,
        add_bos="bos" in special and ids.get(begin or "") == special["bos"],
        add_eos="eos" in special and ids.get(end or "") == special["eos"],
        space_prefix=scheme not in {"", "never"},
        chat_template=_chat_template(folder, settings),
        notes=_PREFIX_NOTES.get(scheme, ()) if sentencepiece else (),
    )


def _load(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if path.exists() or path.is_symlink():
        return read_object(path)
    if optional:
        return {}
    raise InputError(
        f"{path}: not found, a GGUF needs the fast tokenizer's file",
        "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes it",
    )


def _steps(part: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The members of a Sequence, or the one part, as a list."""
    if not part:
        return []
    return list(part[key]) if part.get("type") == "Sequence" else [dict(part)]


def _byte_level_rules(path: Path, data: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    normalizers = [step.get("type") for step in _steps(data.get("normalizer"), "normalizers")]
    if any(kind != "NFC" for kind in normalizers):
        raise InputError(f"{path}: the normalizer {normalizers} has no counterpart in llama.cpp, expected none or NFC")
    steps = _steps(data.get("pre_tokenizer"), "pretokenizers")
    last = steps[-1] if steps else {}
    name, skips = None, False
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        own_regex = last.get("use_regex", True)
        first = steps[0]
        if len(steps) == 1 and own_regex:
            name = "gpt-2"
        elif len(steps) == 2 and own_regex and first.get("type") == "Digits" and first.get("individual_digits"):
            name = "smollm"
        elif len(steps) == 2 and not own_regex and first.get("type") == "Split":
            pattern = (first.get("pattern") or {}).get("Regex", "")
            if first.get("behavior") == "Isolated" and not first.get("invert"):
                name, skips = _SPLITS.get(pattern, (None, False))
    if name is None:
        rules = json.dumps(steps, ensure_ascii=False)
        message = f"{path}: the pre-tokenizer is none that was compared with llama.cpp's: {rules}"
        raise InputError(message, _KNOWN)
    if bool(model.get("ignore_merges")) != skips:
        message = f"{path}: ignore_merges is {not skips}, llama.cpp's pre-tokenizer {name} behaves as {skips}"
        raise InputError(message)
    return name


def _sentencepiece_prefix(path: Path, data: Mapping[str, Any]) -> str:
    """When the tokenizer puts a space before a text: `never`, `each` piece, or by a scheme of Metaspace."""
    prefix, replaces = "never", False
    for step in _steps(data.get("normalizer"), "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == _SPACE:
            prefix = "each"
        elif step.get("type") == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == _SPACE:
            replaces = True
        else:
            raise InputError(f"{path}: the normalizer has {step}, which llama.cpp's SentencePiece does not do")
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if replaces and step.get("type") == "Split" and step.get("pattern") == {"String": " "}:
            continue  # Gemma's; nothing is left to split at
        if step.get("type") != "Metaspace" or step.get("split", True) or step.get("replacement", _SPACE) != _SPACE:
            raise InputError(f"{path}: the pre-tokenizer has {step}, which llama.cpp's SentencePiece does not do")
        replaces, prefix = True, step.get("prepend_scheme", "always")
    if not replaces:
        raise InputError(f"{path}: a BPE with byte fallback that does not replace spaces is not SentencePiece", _KNOWN)
    return prefix


def _type_of(text: str, added: Mapping[str, Any], unknown: str | None, sentencepiece: bool) -> TokenType:
    if text == unknown:
        return TokenType.UNKNOWN
    if text in added:
        return TokenType.CONTROL if added[text].get("special") else TokenType.USER_DEFINED
    if sentencepiece and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return TokenType.BYTE
    return TokenType.NORMAL


def _merges(path: Path, model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for merge in model.get("merges") or []:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise InputError(f"{path}: the merge {merge!r} has {len(parts)} parts, expected 2")
        pairs.append((parts[0], parts[1]))
    return pairs


def _hide_space(part: str) -> str:
    """`part` with its spaces in the byte-level alphabet, as upstream's converter writes merges."""
    return part.replace(" ", chr(ord(" ") + 256))


def _scores(tokens: list[str], merges: list[tuple[str, str]]) -> tuple[float, ...]:
    """A score for each token, so that llama.cpp merges in the order of `merges`; what no merge makes comes last."""
    rank: dict[str, int] = {}
    for index, (left, right) in enumerate(merges):
        rank.setdefault(left + right, index)
    return tuple(-float(rank.get(token, len(merges))) for token in tokens)


def _template_ends(post_processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens that the post-processor puts before and after a single text."""
    for step in _steps(post_processor, "processors"):
        if step.get("type") != "TemplateProcessing" or not step.get("single"):
            continue
        ends = [(piece.get("SpecialToken") or {}).get("id") for piece in (step["single"][0], step["single"][-1])]
        return ends[0], ends[1]
    return None, None


def _special_ids(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    special = {}
    for name, key in (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")):
        token = settings.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text in ids:
            special[name] = ids[text]
    # A model may end its answers with another token than the tokenizer's EOS: its generation config says so.
    generation = _load(folder / "generation_config.json", optional=True).get("eos_token_id")
    ends = generation if isinstance(generation, list) else [generation]
    known = set(ids.values())
    for end in ends:
        if isinstance(end, int) and end in known and end not in special.values():
            special["eot" if "eos" in special else "eos"] = end
            break
    return special


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # named templates: llama.cpp reads one
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None
