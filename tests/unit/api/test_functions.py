"""The functions for Python have the commands' options, by name and default, and check them as these do."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import lf_export
from lf_export.cli import app

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(lf_export, name) for name in ("merge", "calibrate", "quantize", "bench", "run")
}
# An option of the command alone, and why.
NO_PARAMETER = {
    ("merge", "verify"): "asks another question",
    ("bench", "plan"): "asks another question",
    ("bench", "discordance"): "is of --plan",
    ("run", "dry_run"): "lf_export.plan",
}
# What is text on the command line is a value in Python, and what may be given several times is empty there.
AS_PYTHON = {
    ("bench", "concurrency"): (1, 4),
    ("bench", "batch_sizes"): (1, 4),
    ("bench", "enforce"): None,
    ("run", "settings"): None,
}
REQUIRED = {"base", "adapters", "model", "formats", "artifacts", "baseline", "recipe"}


def _options() -> Iterator[tuple[str, click.Parameter, inspect.Parameter]]:
    for name, function in FUNCTIONS.items():
        taken = inspect.signature(function).parameters
        for option in app.commands[name].params:
            if option.name in taken:
                yield name, option, taken[str(option.name)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_command_s_options_and_no_others(name: str) -> None:
    options = {str(option.name) for option in app.commands[name].params} | {"wait"}
    kept = options - {"as_json", "help"} - {option for command, option in NO_PARAMETER if command == name}
    assert set(inspect.signature(FUNCTIONS[name]).parameters) == kept


def test_defaults_are_the_command_line_s() -> None:
    compared = 0
    for name, option, taken in _options():
        if taken.default is inspect.Parameter.empty:
            assert option.required or option.name in REQUIRED | {"out"}, (name, option.name)
            continue
        assert taken.kind is inspect.Parameter.KEYWORD_ONLY, (name, option.name)
        default = option.to_info_dict()["default"]
        if (name, option.name) in AS_PYTHON:
            default = AS_PYTHON[name, str(option.name)]
        if option.name == "threads":
            default = None
        expected = () if option.multiple and default is None and (name, option.name) not in AS_PYTHON else default
        assert taken.default == expected, (name, option.name)
        compared += 1
    assert compared > 40


def test_plan_takes_what_run_takes() -> None:
    run, plan = (inspect.signature(each).parameters for each in (lf_export.run, lf_export.plan))
    assert {name: run[name] for name in run if name not in {"wait", "engine", "ray_address"}} == dict(plan)


def _outside(kind: click.ParamType[Any]) -> list[Any]:
    if isinstance(kind, click.Choice):
        return ["none of them"]
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return []
    below = [] if kind.min is None else [kind.min if kind.min_open else kind.min - 1]
    return below + ([] if kind.max is None else [kind.max if kind.max_open else kind.max + 1])


def test_a_value_that_the_command_line_refuses_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    needed = {"base": "none", "adapters": "none", "model": "none", "formats": "gptq", "out": "none"}
    needed |= {"artifacts": "none", "baseline": "none", "recipe": "none.yaml"}
    refused = 0
    for name, option, _ in _options():
        for value in _outside(option.type):
            function = FUNCTIONS[name]
            taken = inspect.signature(function).parameters
            given = {key: tmp_path / text if key != "formats" else text for key, text in needed.items() if key in taken}
            with pytest.raises(lf_export.InputError) as caught:
                function(**{**given, str(option.name): value})
            assert caught.value.message.startswith(f"{option.name}: {value!r}"), (name, option.name)
            refused += 1
    assert refused > 20
    for value in ((0,), (), (4, 2000)):
        with pytest.raises(lf_export.InputError, match="concurrency"):
            lf_export.bench("none", "none", "none", concurrency=value)
    for wrong in ("much", 0, -1):
        with pytest.raises(lf_export.InputError, match="memory"):
            lf_export.run("none.yaml", memory=wrong)


def test_importing_it_is_light_and_every_name_is_there() -> None:
    probe = (
        "import json, sys, lf_export\n"
        "assert all(hasattr(lf_export, name) for name in lf_export.__all__)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    heavy = {"click", "numpy", "pydantic", "rich", "torch", "transformers", "yaml"}
    assert not heavy & set(json.loads(done.stdout))


def test_no_function_hides_a_module() -> None:
    modules = {path.stem for path in Path(lf_export.__file__).parent.iterdir() if path.stem != "__init__"}
    assert not set(lf_export.__all__) & modules


@pytest.mark.parametrize("name", [*FUNCTIONS, "plan"])
def test_each_function_says_every_parameter_and_has_an_example(name: str) -> None:
    function = getattr(lf_export, name)
    text = inspect.getdoc(function) or ""
    said = text.partition("Args:")[2].partition("Raises:")[0]
    assert [line.split(":")[0].strip() for line in said.splitlines() if line.startswith("    ")] == list(
        inspect.signature(function).parameters
    )
    assert f">>> {'made = ' if name == 'quantize' else ''}" in text
    assert f"lf_export.{name}(" in text
