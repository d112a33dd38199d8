"""GGUF files in llama.cpp against the same model in Transformers: token ids, logits, greedy answers."""

import json
from pathlib import Path
from typing import Any

import gguf
import gguf_folders
import models
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from walk_data import random_data

from lf_export.checkpoint.index import open_checkpoint
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.formats.gguf_arch import plan_tensors
from lf_export.runtimes.llamacpp import LlamaCppSession, open_session
from lf_export.walk.stream import walk

TEXTS = [
    "<|im_start|>user\nWhat is the weather in Paris on 2025-03-14?<|im_end|>\n<|im_start|>assistant\n",
    '{"function_call":{"name":"get_weather","arguments":{"city":"Paris","days":3}}}<|im_end|>\n',
    "  two  spaces\n\n\ttab, 12345 apples; it's 9.81 m/s², can't, WE'LL",
    "Ünïcödé 漢字 🙂 <|im_start|><|endoftext|> <|not a token|>",
]

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
GEMMA = {
    "num_hidden_layers": 4,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 16,
    "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 500.0}, "full_attention": LINEAR},
}

PHI = {"tie_word_embeddings": False, "resid_pdrop": 0.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.05 * index for index in range(8)],
    "long_factor": [1.0 + 0.9 * index for index in range(8)],
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}


def longrope(original: int, longest: int) -> dict[str, Any]:
    """A Phi-3 whose context was extended from `original`; the text of the tests has between 128 and 512 tokens."""
    rope = {"rope_parameters": LONGROPE | {"original_max_position_embeddings": original}}
    return PHI | rope | {"original_max_position_embeddings": original, "max_position_embeddings": longest}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, untied, biases": ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama, linear rope": ("llama", {"rope_parameters": LINEAR}),
    "llama, yarn": ("llama", {"rope_parameters": YARN}),
    "mistral": ("mistral", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "gemma3": ("gemma3_text", GEMMA),
    "phi3": ("phi3", PHI),
    "phi3, tied, partly rotated": ("phi3", PHI | {"tie_word_embeddings": True, "rope_parameters": PARTIAL}),
    "phi3, short factors": ("phi3", longrope(1024, 4096)),
    "phi3, long factors": ("phi3", longrope(128, 4096)),
    "mixtral": ("mixtral", {"tie_word_embeddings": False}),
    "mixtral of eight, tied, three for each token": (
        "mixtral",
        {"num_local_experts": 8, "num_experts_per_tok": 3, "rope_parameters": LINEAR},
    ),
    "qwen3moe": ("qwen3_moe", {"head_dim": 32, "tie_word_embeddings": False}),
    "qwen3moe, tied, one of four": ("qwen3_moe", {"num_experts_per_tok": 1, "moe_intermediate_size": 32}),
}


def written(tmp_path: Path, family: str, overrides: dict[str, Any], scheme: str = "F32") -> tuple[Path, Path]:
    folder = models.tiny_model(tmp_path / "model", family, **overrides)
    _randomize_vectors(folder)
    out = tmp_path / "gguf"
    out.mkdir()
    FORMAT.open(open_checkpoint(folder), out, GgufOptions(types=(scheme,)), "digest").finish()
    return folder, out


def _randomize_vectors(folder: Path) -> None:
    """Norms and biases start as ones and zeros, which would hide a vector in the wrong place."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5, generator=generator))
    model.save_pretrained(folder)


def logits_of(folder: Path, ids: list[int]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_the_logits_of_transformers(tmp_path: Path, case: str) -> None:
    folder, out = written(tmp_path, *CASES[case])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer("".join(TEXTS), add_special_tokens=False).input_ids
    assert len(ids) > 128  # past the lengths at which the scaled rotary embeddings begin to differ
    session = open_session(out, threads=1)
    found = session.score([], [ids], [1])[0]
    session.close()
    expected = logits_of(folder, ids)[:-1]
    # llama.cpp keeps keys and values in half precision (11 bits): rms errors near a thousandth of the logits' spread,
    # where a wrong rotation, norm or head gives a tenth or more.
    assert np.sqrt(np.square(found - expected).mean()) < 0.003 * expected.std()


_SCHEMES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS")
_FEEDBACK: list[tuple[str, str, Any]] = [("llama", scheme, "gptq") for scheme in _SCHEMES]
_EXPERTS: list[tuple[str, str, Any]] = [
    (family, scheme, method)
    for family, scheme in (("mixtral", "Q4_K_M"), ("qwen3_moe", "Q4_0"))
    for method in ("gptq", "imatrix")
]
_FUSED: list[tuple[str, str, Any]] = [
    ("phi3", scheme, method) for scheme in ("Q4_0", "Q4_K_M") for method in ("gptq", "imatrix")
]


@pytest.mark.parametrize(("family", "scheme", "method"), [*_FEEDBACK, *_FUSED, *_EXPERTS])
def test_llama_cpp_computes_the_logits_of_the_weights_that_were_chosen(
    tmp_path: Path, family: str, scheme: str, method: Any
) -> None:
    shape = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    # with every expert chosen, rounded activations change by how much one counts, not which
    shape |= {"num_experts_per_tok": 4} if family in {"mixtral", "qwen3_moe"} else {}
    shape |= {"moe_intermediate_size": 256} if family == "qwen3_moe" else {}
    folder = models.tiny_model(tmp_path / "model", family, **shape)
    checkpoint = open_checkpoint(folder)
    target = FORMAT.open(checkpoint, tmp_path, GgufOptions(types=(scheme,), name="m", method=method), "digest")
    walk(checkpoint, random_data([40, 60, 50, 70] * 8), [target], dtype=torch.float32)
    linears = target.finish()["files"][f"m-{scheme}.gguf"].get("linears", {})
    assert any(facts["method"] == "gptq" for facts in linears.values()) is (method == "gptq" and scheme != "Q8_0")
    session = open_session(tmp_path / f"m-{scheme}.gguf", threads=1)
    ids = session.encode("".join(TEXTS))
    found = session.score([], [ids], [1])[0]
    session.close()
    before = logits_of(folder, ids)[:-1]
    _load_dequantized(folder, tmp_path / f"m-{scheme}.gguf")
    expected = logits_of(folder, ids)[:-1]
    # llama.cpp rounds activations to 8 bits where weights are quantized: seen 0.02 to 0.04 on random weights
    assert np.sqrt(np.square(found - expected).mean()) < 0.05 * expected.std()
    if scheme != "Q8_0":  # what rounding the weights changes is more
        assert np.sqrt(np.square(found - before).mean()) > 2 * np.sqrt(np.square(found - expected).mean())


def _load_dequantized(folder: Path, file: Path) -> None:
    """Put what a GGUF holds into the Transformers folder that it was made from, read by the gguf package."""
    checkpoint = open_checkpoint(folder)
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    tensors = {}
    for tensor in plan_tensors(checkpoint):
        values = gguf.quants.dequantize(held[tensor.name].data, held[tensor.name].tensor_type).reshape(tensor.shape)
        if tensor.unit:  # neighbours that rotate together, back to halves
            pairs = values.reshape(-1, tensor.unit // 2, 2, *tensor.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(tensor.shape)
        matrices = values if tensor.experts else [values]
        for source, matrix in zip(tensor.sources, matrices, strict=True):
            tensors[source.name] = torch.from_numpy(np.array(matrix, np.float32))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_and_text_are_those_of_the_tokenizer(tmp_path: Path, text: str) -> None:
    folder, out = written(tmp_path, "llama", {}, "Q8_0")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    session = open_session(out, threads=1)
    ids = session.encode(text)
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    assert session.decode(ids) == text
    session.close()


_LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
BYTE_LEVEL_RULES = {
    "gpt-2": (None, False),
    "llama-bpe": (_LLAMA3, True),
    "qwen2": (_LLAMA3.replace("{1,3}", ""), False),
}


@pytest.mark.parametrize("name", BYTE_LEVEL_RULES)
def test_each_pre_tokenizer_splits_as_llama_cpp_does(tmp_path: Path, name: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    regex, ignore_merges = BYTE_LEVEL_RULES[name]
    folder = models.tiny_model(tmp_path / "model")
    tokenizer = models.tiny_tokenizer()
    backend = tokenizer.backend_tokenizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    backend.pre_tokenizer = (
        last if regex is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), last])
    )
    backend.model.ignore_merges = ignore_merges
    tokenizer.save_pretrained(folder)
    FORMAT.open(open_checkpoint(folder), tmp_path, GgufOptions(types=("Q8_0",)), "digest").finish()
    session = open_session(tmp_path / "model-Q8_0.gguf", threads=1)
    assert gguf_folders.fields_of(tmp_path / "model-Q8_0.gguf")["tokenizer.ggml.pre"] == name
    for text in [*TEXTS, "1234567 weather123the 12 345\r\n\r\n  x", "I'LL we've..!!\n\n"]:
        assert session.encode(text) == tokenizer(text, add_special_tokens=False).input_ids, text
    session.close()


SENTENCEPIECE_RULES: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "legacy": (
        {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        None,
    ),
    "no prefix": ({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, None),
    "Gemma": (
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    ),
    "Metaspace": (None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}),
}


@pytest.mark.parametrize("rules", SENTENCEPIECE_RULES)
def test_sentencepiece_token_ids_are_those_of_the_tokenizer(tmp_path: Path, rules: str) -> None:
    folder = models.tiny_model(tmp_path / "model", tokenizer=False, vocab_size=600)
    tokenizer = _sentencepiece(*SENTENCEPIECE_RULES[rules])
    tokenizer.save_pretrained(folder)
    FORMAT.open(open_checkpoint(folder), tmp_path, GgufOptions(types=("Q8_0",)), "digest").finish()
    session = open_session(next(tmp_path.glob("*.gguf")), threads=1)
    for text in [*TEXTS, "[INST] What is it? [/INST] it is </s><s>[INST] and [/INST]", " a a  aa", "\n\n"]:
        assert session.encode(text) == tokenizer(text, add_special_tokens=False).input_ids, text
    session.close()


def _sentencepiece(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None) -> PreTrainedTokenizerFast:
    """A BPE with byte fallback over the pieces of a few sentences, in the form of Llama 2's tokenizer.json."""
    from tokenizers import Tokenizer

    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    merges: list[tuple[str, str]] = []
    words = ["▁what", "▁weather", "▁the", "▁it", "▁is", "▁Paris", "function", "name", "▁▁", "in", "at", "er", "what"]
    made = set(pieces)
    for word in words:
        whole = word[0]
        for letter in word[1:]:
            if whole + letter not in made:
                merges.append((whole, letter))
                made.add(whole + letter)
                pieces.append(whole + letter)
            whole += letter
    pieces += sorted(set("".join(words) + "abcdefghijklmnopqrstuvwxyzINSTW[]/?") - made)
    data = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, text in enumerate(pieces[:3])
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": merges,
        },
    }
    tokenizer = Tokenizer.from_str(json.dumps(data))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module", params=["llama", "gemma3", "phi3"])
def greedy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaCppSession]:
    folder, out = written(tmp_path_factory.mktemp("greedy"), *CASES[request.param])
    return folder, open_session(out, threads=1)


def test_greedy_answers_are_those_of_transformers(greedy: tuple[Path, LlamaCppSession]) -> None:
    folder, session = greedy
    prefix, branches = session.encode(TEXTS[0]), [session.encode(text) for text in TEXTS[1:]]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for branch, answer in zip(branches, session.generate(prefix, branches, 12), strict=True):
        prompt = torch.tensor([prefix + branch])
        with torch.no_grad():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=sorted(session.eos_ids),
                pad_token_id=0,
            )
        assert list(answer.ids) == out[0, prompt.shape[1] :].tolist()
