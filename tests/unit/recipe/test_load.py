"""Recipes are read with every mistake at once, each with its file and line."""

from pathlib import Path

import pytest

from lf_export.calibration.variants import parse_variant
from lf_export.errors import InputError
from lf_export.recipe import GgufTarget, GptqTarget, load_recipe
from lf_export.shipped import shipped

GOOD = """\
name: demo
base: {path: base}
adapters: [adapter]
output: out
quantize:
  four: {format: gptq, bits: 4}
  file: {format: gguf, type: Q8_0}
"""


def _recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _mistakes(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    return caught.value.message.splitlines()


def test_a_recipe_is_typed_and_has_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, GOOD))
    assert isinstance(recipe.quantize["four"], GptqTarget)
    assert isinstance(recipe.quantize["file"], GgufTarget)
    assert recipe.gate.margin == 0.05
    assert recipe.bench is not None


def test_an_adapter_is_a_path_or_a_path_and_a_weight(tmp_path: Path) -> None:
    text = GOOD.replace("[adapter]", "[one, {path: two, weight: -0.5}]") + "merge: {combine: cat}\n"
    recipe = load_recipe(_recipe(tmp_path, text))
    assert [(source.path, source.weight) for source in recipe.adapters] == [("one", 1.0), ("two", -0.5)]
    assert recipe.merge.combine == "cat"
    (mistake,) = _mistakes(_recipe(tmp_path, GOOD.replace("[adapter]", "[{path: a, weight: .nan}]")))
    assert "adapters[0].weight" in mistake


@pytest.mark.parametrize("name", ["quickstart.yaml", "quickstart-full.yaml"])
def test_the_recipes_that_ship_are_valid(name: str) -> None:
    assert load_recipe(shipped("recipes", name)).gate.enforce == ["gguf-q8_0"]


def test_the_recipe_with_a_server_is_valid() -> None:
    recipe = load_recipe(shipped("recipes", "bench-endpoint.yaml"))
    assert recipe.bench is not None
    server = recipe.bench.endpoints["gguf-q8_0-served"]
    assert server.artifact in recipe.quantize
    settings = server.settings()
    assert (settings.url, settings.concurrency, settings.api_key_env) == ("http://127.0.0.1:8080/v1", (1, 2, 4), None)


def test_mistakes_about_servers_are_found_with_their_lines(tmp_path: Path) -> None:
    text = GOOD + (
        "bench:\n  endpoints:\n    a:\n      url: http://user:secret@host/v1\n      artifact: nothing\n"
        "    four:\n      url: ftp://host\n      concurrency: []\n    merged: {url: http://h/v1, api_key: sk}\n"
        "gate: {enforce: [a, zz]}\n"
    )
    found = "\n".join(_mistakes(_recipe(tmp_path, text)))
    assert "bench.endpoints.a.url: http://…@host/v1: credentials in a URL" in found
    assert "bench.endpoints.a.artifact: no artifact is named 'nothing'" in found
    assert "bench.endpoints.four: an artifact has that name" in found
    assert "bench.endpoints.four.url: ftp://host: expected a URL such as" in found
    assert "bench.endpoints.four.concurrency: list should have at least 1 item" in found
    assert "bench.endpoints.merged: the name is reserved" in found
    assert "bench.endpoints.merged.api_key: unknown key; did you mean 'api_key_env'?" in found
    assert "gate.enforce[1]: no artifact is named 'zz', expected one of: four, file, a, four, merged" in found
    assert "gate.enforce[0]" not in found


@pytest.mark.parametrize("name", ["masked", "distractors:1", "distractors:64", "distractors:65", "distractors:0", "x"])
def test_a_recipe_takes_the_variants_that_bench_knows(tmp_path: Path, name: str) -> None:
    path = _recipe(tmp_path, GOOD + f"bench: {{variants: ['{name}'], allow_contaminated: [get_weather]}}\n")
    try:
        known = parse_variant(name)
    except InputError:
        assert len(_mistakes(path)) == 1
    else:
        bench = load_recipe(path).bench
        assert bench is not None
        assert bench.variants == [str(known)]


def test_a_size_of_memory_is_checked(tmp_path: Path) -> None:
    assert load_recipe(_recipe(tmp_path, GOOD + "\nmemory: 4GB\n")).memory == "4GB"
    (mistake,) = _mistakes(_recipe(tmp_path, GOOD + "\nmemory: 4 quarts\n"))
    assert "memory: " in mistake
    assert "expected one such as 4GB or 512MB" in mistake


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = _recipe(
        tmp_path,
        "name: bad name\nbase: {pat: x}\nadapters: []\noutput: out\nthreds: 2\nquantize:\n"
        "  a: {format: gptq, bits: 5, groupsize: 3}\n  merged: {format: gguf, type: Q9}\n"
        "gate: {enforce: [zz], margin: 2}\n",
    )
    found = _mistakes(path)
    assert [line.split(": ")[0] for line in found] == [f"{path}:{n}" for n in (1, 2, 3, 5, 7, 7, 8, 8, 9, 9)]
    text = "\n".join(found)
    assert "base.pat: unknown key; did you mean 'path'?" in text
    assert "threds: unknown key; did you mean 'threads'?" in text
    assert "quantize.a.bits: expected 2, 3, 4, 8, or an average between 2 and 8 that is not an integer" in text
    assert "quantize.merged: the name is reserved" in text
    assert "gate.enforce[0]: no artifact is named 'zz', expected one of: a, merged" in text


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    path = _recipe(tmp_path, GOOD + "name: again\n")
    assert _mistakes(path) == [f"{path}:8: name: given twice"]


def test_what_is_not_yaml_is_said_with_its_line(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "name: demo\nbase: {path: base\n")
    assert _mistakes(path)[0].startswith(f"{path}:3: not YAML: ")


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "empty, expected a recipe"), ("- a\n", "found a list"), ("a: &x 1\nb: *x\n", "aliases are not used")],
)
def test_what_is_not_a_recipe_is_refused(tmp_path: Path, text: str, what: str) -> None:
    assert what in _mistakes(_recipe(tmp_path, text))[0]


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: \xff\n")
    assert _mistakes(path) == [f"{path}: not UTF-8 at byte 6"]


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    assert _mistakes(tmp_path / "none.yaml") == [f"{tmp_path / 'none.yaml'}: no such recipe"]


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in _mistakes(_recipe(tmp_path, "#" * (1 << 20) + "\n"))[0]


def test_overrides_keep_their_order_and_their_mistakes_have_lines(tmp_path: Path) -> None:
    overrides = "overrides: {'*.v_proj': {bits: 8}, '*.0.*': {group_size: 32, skip: true}}"
    recipe = load_recipe(_recipe(tmp_path, GOOD.replace("bits: 4}", f"bits: 3, {overrides}}}")))
    four = recipe.quantize["four"]
    assert isinstance(four, GptqTarget)
    assert list(four.overrides) == ["*.v_proj", "*.0.*"]
    wrong = "{format: gptq,\n    overrides: {'*.v_proj': {bits: 5},\n      '*.o_proj': {bit: 8}}}"
    first, second = _mistakes(_recipe(tmp_path, GOOD.replace("{format: gptq, bits: 4}", wrong)))
    assert ":7: quantize.four.overrides.*.v_proj.bits: input should be 2, 3, 4 or 8, found 5" in first
    assert ":8: quantize.four.overrides.*.o_proj.bit: unknown key; did you mean 'bits'?" in second


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ("margin: 0.1\n", "margin: unknown key; it is a key of gate"),
        ("gate: {enforc: [four]}\n", "unknown key; did you mean 'enforce'?"),
        ("gate: {enforce: [fuor]}\n", "expected one of: four, file; did you mean 'four'?"),
        ("calibration: {dialect: llama-function}\n", "chat-template; did you mean 'llama-functions'?"),
        ("calibration: {calls: ['shipped:call.jsonl']}\n", "ships under calibration/; did you mean 'calls.jsonl'?"),
        (
            "bench: {calls: {path: 'shipped:../pyproject.toml'}}\n",
            "bench.calls.path: nothing named '../pyproject.toml'",
        ),
        ("bench: {runtimes: {four: torhc}}\n", "did you mean 'torch'?"),
        ("merge: {dtype: float-16}\n", "found 'float-16'; did you mean 'float16'?"),
        ("bench: {cals: {path: x}}\n", "bench.cals: unknown key; did you mean 'calls'?"),
        ("bench: {calls: {path: x, lmit: 3}}\n", "bench.calls.lmit: unknown key; did you mean 'limit'?"),
    ],
)
def test_a_mistake_says_what_was_probably_meant(tmp_path: Path, extra: str, what: str) -> None:
    (mistake,) = _mistakes(_recipe(tmp_path, GOOD + extra))
    assert what in mistake
    assert f":{len(GOOD.splitlines()) + 1}: " in mistake


def test_a_key_of_another_kind_of_target_is_said_to_be_so(tmp_path: Path) -> None:
    wrong = GOOD.replace("type: Q8_0", "type: q4_k_m, bits: 4, tpye: 3")
    found = "\n".join(_mistakes(_recipe(tmp_path, wrong)))
    assert "quantize.file.type: input should be" in found
    assert "found 'q4_k_m'; did you mean 'Q4_K_M'?" in found
    assert "quantize.file.bits: unknown key; it is a key of quantize.NAME" in found
    assert "quantize.file.tpye: unknown key; did you mean 'type'?" in found


@pytest.mark.parametrize("name", ["gptq", "gguf", "awq", "onnx"])
def test_an_artifact_may_be_called_as_its_format(tmp_path: Path, name: str) -> None:
    path = _recipe(tmp_path, GOOD.replace("  four: {format: gptq, bits: 4}", f"  {name}: {{format: gptq, bits: 5}}"))
    (mistake,) = _mistakes(path)
    assert f"{path}:6: quantize.{name}.bits: expected 2, 3, 4" in mistake
