"""The model card of an artifact: what it is, where it comes from, how to run it."""

from collections.abc import Mapping
from typing import Any

_RUN = {
    "gptq": (
        "Loads in Transformers with gptqmodel installed, in vLLM and in SGLang, as it is:\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n```\n"
    ),
    "awq": (
        "Loads in Transformers with gptqmodel installed, in vLLM and in SGLang, as it is:\n\n"
        "```python\nfrom transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n```\n"
    ),
    "onnx": (
        "Loads in ONNX Runtime GenAI, and in ONNX Runtime itself with keys and values as inputs and outputs:\n\n"
        "```python\nimport onnxruntime_genai as og\n"
        "model = og.Model(folder)\ntokenizer = og.Tokenizer(model)\n```\n"
    ),
    "gguf": "Loads in llama.cpp:\n\n```sh\nllama-server --model {file} --jinja\n```\n",
}

_LICENCE = (
    "Licence and notice files of the model it was made of lie beside this page. "
    "Calibration data that ships with lf-export is Apache-2.0."
)


def artifact_card(name: str, manifest: Mapping[str, Any]) -> str:
    """The card's Markdown, from the artifact's manifest; every figure in it is the manifest's."""
    audit = manifest["calibration"]
    files = manifest["files"]
    kind = manifest["kind"]
    model_file = next((file for file in files if file.endswith(".gguf") and file != "imatrix.gguf"), "")
    lines = [
        f"# {name}",
        "",
        (
            f"A {kind} artifact made by lf-export {manifest['versions']['lf-export']}. "
            "`lf-export.json` beside this page is its manifest: digests of what it was made of, options, versions, "
            "errors per layer."
        ),
        "",
        "## How to run it",
        "",
        _RUN.get(kind, "").format(file=model_file),
        "## How it was made",
        "",
        *(f"- {key}: {value}" for key, value in sorted(manifest["options"].items())),
        (
            f"- calibration: digest `{str(audit.get('digest', ''))[:16]}…`, "
            f"{audit.get('samples', '?')} conversations, {audit.get('tokens', '?')} tokens"
        ),
        "",
        "## Licence",
        "",
        _LICENCE,
        "",
    ]
    return "\n".join(lines)
