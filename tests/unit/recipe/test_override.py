"""Values from the command line stand in for a recipe's own, and their mistakes are located at the option."""

from pathlib import Path
from typing import Any

import pytest

from lf_export.errors import InputError
from lf_export.recipe import GptqTarget, Recipe, load_recipe, read_overrides
from lf_export.recipe.override import apply

TEXT = """\
name: demo
base: {script: fetch.py}
adapters: [adapter]
output: out
quantize:
  gptq-4.25: {format: gptq, bits: 4.25, overrides: {"*.v_proj": {bits: 8}}}
"""


def loaded(folder: Path, *settings: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return load_recipe(path, read_overrides(settings, folder / "here"))


def mistakes(folder: Path, *settings: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        loaded(folder, *settings)
    return caught.value.message.splitlines()


def test_values_are_yaml_and_keys_lead_anywhere(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "gate.margin=0.03",
        "calibration.weights={name: 4}",
        "bench.max_new_tokens=9",
        "threads=2",
        "bench.seed=7",
    )
    assert found.gate.margin == 0.03
    assert found.calibration.weights == {"name": 4}
    assert found.bench is not None
    assert (found.bench.max_new_tokens, found.bench.seed, found.threads) == (9, 7, 2)


def test_names_with_dots_and_patterns_are_one_key(tmp_path: Path) -> None:
    found = loaded(tmp_path, "quantize.gptq-4.25.bits=3", "quantize.gptq-4.25.overrides.*.v_proj.bits=4")
    target = found.quantize["gptq-4.25"]
    assert isinstance(target, GptqTarget)
    assert target.bits == 3
    assert target.overrides["*.v_proj"].bits == 4
    assert list(found.quantize) == ["gptq-4.25"]


def test_paths_are_relative_to_the_working_folder_and_scripts_are_not(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "base={path: models/base}",
        "adapters=[one, {path: /abs/two, weight: 2}]",
        "calibration.calls=[rows.jsonl, 'shipped:calls.jsonl']",
        "bench.calls.path=bfcl:wheel",
        "bench.chat.path=hf:some/set",
        "output=elsewhere",
    )
    here = tmp_path / "here"
    assert found.base.path == str(here / "models/base")
    assert [source.path for source in found.adapters] == [str(here / "one"), "/abs/two"]
    assert found.calibration.calls == [str(here / "rows.jsonl"), "shipped:calls.jsonl"]
    assert found.bench is not None
    assert (found.bench.calls.path, found.bench.chat.path) == (f"bfcl:{here / 'wheel'}", "hf:some/set")
    assert found.output == "elsewhere"
    assert loaded(tmp_path, "base.script=other.py").base.script == "other.py"


def test_items_of_lists_are_replaced_and_appended(tmp_path: Path) -> None:
    assert [each.path for each in loaded(tmp_path, "adapters[0]=/x", "adapters[1]=/y").adapters] == ["/x", "/y"]
    assert mistakes(tmp_path, "adapters[3]=/x") == ["--set adapters[3]=/x: no item 3, there are 1"]


def test_the_last_of_several_values_counts(tmp_path: Path) -> None:
    assert loaded(tmp_path, "gate.margin=0.1", "gate.margin=0.2").gate.margin == 0.2


def test_a_mistake_is_located_at_the_option_that_made_it(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "gate.margin=2", "gate.margn=1", "quantize.gptq-4.25={format: gptqq}")
    assert found == sorted(found)
    assert "--set gate.margin=2: gate.margin: input should be less than 1, found 2" in found
    assert "--set gate.margn=1: gate.margn: unknown key; did you mean 'margin'?" in found
    assert any("no format is named 'gptqq'" in line and "did you mean 'gptq'?" in line for line in found)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("gate.margin", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("gate..margin=3", "is no key"),
        ("gate[x]=3", "is no key"),
        ("name.x=3", "a key 'x' of what is not a mapping"),
        ("base[0]=3", "an item 0 of what is not a list"),
        ("adapters.x=3", "a key 'x' of what is not a mapping"),
        ("threads={a: [", "the value is not YAML"),
        ("threads=[&a 1, *a]", "aliases are not used"),
        ("threads=!!python/object:os.system {}", "the value is not YAML"),
        ("threads=" + "[" * 5000, "nested more than 32 deep"),
        ("threads=" + "9" * 70_000, "larger than 64 KiB"),
    ],
)
def test_what_is_no_setting_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (line,) = mistakes(tmp_path, text)
    assert what in line
    assert len(line) < 300


def test_every_wrong_text_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        read_overrides(["a", "b"])
    assert len(caught.value.message.splitlines()) == 2


def test_nothing_is_put_where_a_key_leads_nowhere() -> None:
    value: dict[str, Any] = {"a": 1}
    with pytest.raises(InputError):
        apply(value, read_overrides(["a.b.c=1"]))
    assert value == {"a": 1}
