"""How an artifact is served, runtime by runtime: exact commands for its model card, from the folder that it lies in."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from lf_export.report.modelfile import MODELFILE_NAME

_LLAMA = "llama-functions"
_TESTED = "lf-export's tests run this on tiny models."
_UNTESTED = "Written to its documentation: lf-export's tests do not run it."

_OWN_DIALECT = (
    "The model was trained on the dialect `llama-functions`, which is not its tokenizer's chat template: ask servers "
    "for completions of a prompt in that dialect (`/v1/completions`), not for chat completions."
)
_OLLAMA = (
    f"`{MODELFILE_NAME}` has the template and the stop tokens, and says what it cannot do. Its text is compared with "
    "the dialect's in lf-export's tests; Ollama itself is not run there."
)
_PARTS = "Ollama imports a GGUF in one file: merge the parts with `llama-gguf-split --merge` first."

_MESSAGES = 'messages = [{"role": "user", "content": "What is the weather in Paris?"}]'
_PROMPTS = {
    True: 'prompt = "[INST] What is the weather in Paris? [/INST]"  # the dialect llama-functions',
    False: f"{_MESSAGES}\nprompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)",
}

_TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
{prompt}
ids = tokenizer(prompt, return_tensors="pt", add_special_tokens={special})
answer = model.generate(**ids, max_new_tokens=192, do_sample=False)
print(tokenizer.decode(answer[0, ids["input_ids"].shape[1]:]))
"""

_GENAI = """\
import onnxruntime_genai as og
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = og.Model(".")
{prompt}
ids = tokenizer(prompt, add_special_tokens={special})["input_ids"]
params = og.GeneratorParams(model)
params.set_search_options(do_sample=False, max_length=len(ids) + 192)
generator = og.Generator(model, params)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)[len(ids):]))
"""

_ORT = """\
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
print([each.name for each in session.get_inputs()])  # ids, mask, and keys and values of each layer
"""


def serving(name: str, manifest: Mapping[str, Any]) -> list[str]:
    """The lines of a card's part about running the artifact; every command starts in the artifact's folder.

    Args:
        name: the artifact's, under which servers offer it.
        manifest: of the artifact.
    """
    writers = {"gptq": _safetensors, "awq": _safetensors, "gguf": _gguf, "onnx": _onnx}
    writer = writers.get(str(manifest["kind"]))
    if writer is None:
        return []
    dialect = str(manifest["calibration"].get("dialect", "chat-template"))
    lines = ["Every command starts in this folder.", ""]
    if dialect == _LLAMA:
        lines += [_OWN_DIALECT, ""]
    for title, language, code, said in writer(name, manifest, dialect):
        lines += [f"### {title}", "", *([f"```{language}\n{code.rstrip()}\n```", ""] if code else []), said, ""]
    return lines


_Part = tuple[str, str, str, str]


def _safetensors(name: str, manifest: Mapping[str, Any], dialect: str) -> Iterator[_Part]:
    yield (
        "Transformers",
        "python",
        _filled(_TRANSFORMERS, dialect),
        f"Needs gptqmodel and optimum (`pip install 'lf-export[gptq]'`). {_TESTED}",
    )
    bits = manifest["options"].get("bits", 4)
    narrow = "" if bits in {4, 8} else " Its kernels are for 4 and 8 bits: see whether your version takes this width."
    yield "vLLM", "sh", f"vllm serve . --served-model-name {quote(name)} --port 8000", _UNTESTED + narrow
    command = f"python -m sglang.launch_server --model-path . --served-model-name {quote(name)} --port 8000"
    yield "SGLang", "sh", command, _UNTESTED + narrow


def _gguf(name: str, manifest: Mapping[str, Any], dialect: str) -> Iterator[_Part]:
    file = model_file(manifest)
    jinja = "" if dialect == _LLAMA else " --jinja"
    yield (
        "llama.cpp",
        "sh",
        f"llama-server --model {quote(file)} --alias {quote(name)}{jinja} --port 8080",
        f"It answers at `http://127.0.0.1:8080/v1`. {_TESTED}",
    )
    if MODELFILE_NAME in manifest["files"]:
        yield "Ollama", "sh", f"ollama create {quote(name)} -f {MODELFILE_NAME}\nollama run {quote(name)}", _OLLAMA
    else:
        yield "Ollama", "", "", _PARTS


def _onnx(_name: str, manifest: Mapping[str, Any], dialect: str) -> Iterator[_Part]:
    package = "onnxruntime-genai-cuda" if manifest["options"].get("provider") == "cuda" else "onnxruntime-genai"
    tested = "No graph for cuda was ever run by lf-export." if package.endswith("cuda") else _TESTED
    yield "ONNX Runtime GenAI", "python", _filled(_GENAI, dialect), f"Needs {package} and transformers. {tested}"
    yield "ONNX Runtime", "python", _ORT, f"Keys and values go in and out with every step. {tested}"


def model_file(manifest: Mapping[str, Any]) -> str:
    """The GGUF of an artifact, the first part where there are several; empty where there is none."""
    return next((file for file in sorted(manifest["files"]) if file.endswith(".gguf") and file != "imatrix.gguf"), "")


def _filled(code: str, dialect: str) -> str:
    own = dialect == _LLAMA
    return code.replace("{prompt}", _PROMPTS[own]).replace("{special}", str(own))
