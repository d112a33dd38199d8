"""ONNX Runtime GenAI, the runtime that the folders are for, writes the tokens that our own runtime writes."""

from collections.abc import Callable

import pytest
from onnx_folders import Exported

from lf_export.runtimes.onnx import open_session

PROMPT = [5, 17, 40, 41, 90, 7, 8, 9, 200, 33]


@pytest.mark.parametrize("name", ["llama-fp32", "llama3-int4", "mistral-fp32", "qwen2-fp16", "phi3-int8"])
def test_genai_writes_the_same_tokens(exported: Callable[[str], Exported], name: str) -> None:
    import onnxruntime_genai as og

    folder = exported(name).folder
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(PROMPT) + 32, min_length=0)
    generator = og.Generator(model, params)
    generator.append_tokens(PROMPT)
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    ours = open_session(folder, 1).generate_one(PROMPT, 32)
    assert len(found) > 8
    assert tuple(found) == ours.ids[: len(found)]
