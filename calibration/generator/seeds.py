"""Read and check the hand-written seeds: functions with phrasings, pools of values, requests without a function."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SEEDS = Path(__file__).resolve().parent.parent / "seeds"
SLOT = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)(#2)?\}")
TYPES = ("string", "integer", "number", "boolean", "array", "object")


@dataclass(frozen=True)
class Exchange:
    """A request and the prose that answers it."""

    ask: str
    reply: str


@dataclass(frozen=True, eq=False)
class Function:
    """One function with everything that can be said to call it; `parameters` is the seed's own form."""

    domain: str
    name: str
    description: str
    parameters: dict[str, dict[str, Any]]
    phrasings: tuple[str, ...]
    parallel: tuple[str, ...]
    missing: tuple[Exchange, ...]
    result: dict[str, Any] | None
    answer: str | None
    followup: str | None


@dataclass(frozen=True)
class Split:
    """The seeds of one split, `train` or `eval`."""

    name: str
    functions: tuple[Function, ...]
    pools: dict[str, list[Any]]
    no_call: tuple[Exchange, ...]
    refusals: tuple[str, ...]

    def domains(self) -> dict[str, list[Function]]:
        """The functions by domain, in file order."""
        grouped: dict[str, list[Function]] = {}
        for function in self.functions:
            grouped.setdefault(function.domain, []).append(function)
        return grouped


def phrasing_hash(template: str) -> str:
    """A short name of a phrasing template, to prove that two files share none."""
    return hashlib.sha1(template.encode(), usedforsecurity=False).hexdigest()[:12]


def slots(template: str) -> list[tuple[str, bool]]:
    """The slots of a template, as (dotted name, is it the second call's)."""
    return [(match[1], match[2] is not None) for match in SLOT.finditer(template)]


def is_required(parameters: dict[str, Any], dotted: str) -> bool:
    """Whether a call cannot leave out the parameter that a slot names, objects around it included."""
    head, _, rest = dotted.partition(".")
    parameter = parameters[head]
    return not parameter.get("optional") and (not rest or is_required(parameter["properties"], rest))


def load_split(name: str, root: Path = SEEDS) -> Split:
    """The seeds of split `name`.

    Raises:
        SystemExit: some seed is wrong; every mistake is named with its file and function.
    """
    folder = root / name
    pools = _read(folder / "_pools.yaml") or {}
    problems: list[str] = []
    functions: list[Function] = []
    for path in sorted(folder.glob("[!_]*.yaml")):
        seed = _read(path)
        for row in seed["functions"]:
            where = f"{path.name}: {row.get('name')}"
            try:
                function = _function(str(seed["domain"]), row)
            except (KeyError, TypeError, AttributeError) as error:
                problems.append(f"{where}: {type(error).__name__} {error}")
                continue
            problems += [f"{where}: {problem}" for problem in _check(function, pools)]
            functions.append(function)
    names = [function.name for function in functions]
    problems += [f"{name}: defined twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise SystemExit("\n".join(["error: wrong seeds:", *problems]))
    refusals = _read(folder / "_refusals.yaml") or _read(root / "train" / "_refusals.yaml") or []
    no_call = tuple(Exchange(row["ask"], row["reply"]) for row in _read(folder / "_no_call.yaml") or [])
    return Split(name, tuple(functions), pools, no_call, tuple(refusals))


def load_chat(name: str, root: Path = SEEDS) -> list[dict[str, Any]]:
    """The chat conversations of split `name`: `seeds/chat/eval*.yaml` are evaluation, the other files training."""
    rows = []
    for path in sorted((root / "chat").glob("*.yaml")):
        if path.name.startswith("eval") == (name == "eval"):
            rows += [row for row in _read(path) if _check_chat(path, row)]
    return rows


def _check_chat(path: Path, row: dict[str, Any]) -> bool:
    roles = [message["role"] for message in row["messages"]]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) or not all(m["content"].strip() for m in row["messages"]):
        raise SystemExit(f"error: {path.name}: {row.get('id')}: turns are {roles}, expected user and assistant in turn")
    return True


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def _function(domain: str, row: dict[str, Any]) -> Function:
    followup = row.get("followup")
    return Function(
        domain=domain,
        name=row["name"],
        description=row["description"],
        parameters=row.get("parameters") or {},
        phrasings=tuple(row["phrasings"]),
        parallel=tuple(row.get("parallel") or ()),
        missing=tuple(Exchange(case["ask"], case["reply"]) for case in row.get("missing") or ()),
        result=row.get("result"),
        answer=row.get("answer"),
        followup=followup["ask"] if isinstance(followup, dict) else followup,
    )


def _check(function: Function, pools: dict[str, list[Any]]) -> list[str]:
    problems = []
    for name, parameter in function.parameters.items():
        problems += _check_parameter(name, parameter, pools)
    if problems:
        return problems
    for template in (*function.phrasings, *function.parallel):
        if not isinstance(template, str):
            problems.append(f"phrasing is not text: {template!r}")
            continue
        if SLOT.sub("", template).count("{"):
            problems.append(f"stray brace in {template!r}")
        named = {name for name, _ in slots(template)}
        unknown = [name for name in named if _find(function.parameters, name) is None]
        problems += [f"unknown slot {name} in {template!r}" for name in unknown]
        problems += [f"required {name} has no slot in {template!r}" for name in _lacking(function.parameters, named)]
    for template in function.parallel:
        if not any(second for _, second in slots(template)):
            problems.append(f"parallel phrasing without a #2 slot: {template!r}")
    for template in (function.followup,) if function.followup else ():
        problems += [
            f"unknown slot {name} in {template!r}"
            for name, _ in slots(template)
            if _find(function.parameters, name) is None
        ]
    if function.answer:
        for name, _ in slots(function.answer):
            if name.startswith("result."):
                if _lookup(function.result, name.split(".")[1:]) is None:
                    problems.append(f"unknown result {name} in the answer")
            elif _find(function.parameters, name) is None:
                problems.append(f"unknown slot {name} in the answer")
    return problems


def _check_parameter(name: str, parameter: dict[str, Any], pools: dict[str, list[Any]]) -> list[str]:
    kind = parameter.get("type")
    if kind not in TYPES:
        return [f"{name}: type {kind!r}, expected one of {', '.join(TYPES)}"]
    if kind == "object":
        return [
            problem
            for key, inner in parameter["properties"].items()
            for problem in _check_parameter(f"{name}.{key}", inner, pools)
        ]
    if kind == "array":
        return _check_parameter(f"{name}[]", parameter["items"], pools)
    if kind == "boolean":
        say = parameter.get("say")
        return [] if say and set(say) <= {True, False} else [f"{name}: a boolean needs say: {{true: …, false: …}}"]
    if "enum" in parameter:
        wrong = [value for value in parameter["enum"] if not isinstance(value, str) and kind == "string"]
        return [f"{name}: enum values that are not text: {wrong}"] if wrong else []
    if "from" in parameter:
        return [] if len(pools.get(parameter["from"]) or []) > 1 else [f"{name}: no pool {parameter['from']!r}"]
    if "range" in parameter or parameter.get("values"):
        return []
    return [f"{name}: no source of values (from, values, range, enum)"]


def _find(parameters: dict[str, Any], dotted: str) -> dict[str, Any] | None:
    head, _, rest = dotted.partition(".")
    parameter = parameters.get(head)
    if parameter is None or not rest:
        return parameter
    return _find(parameter.get("properties", {}), rest)


def _lacking(parameters: dict[str, Any], named: set[str], prefix: str = "") -> list[str]:
    """The required parameters that no slot in `named` fills."""
    lacking: list[str] = []
    for key, parameter in parameters.items():
        dotted = prefix + key
        inside = any(name.startswith(dotted + ".") for name in named)
        if parameter["type"] == "object" and inside:
            lacking += _lacking(parameter["properties"], named, dotted + ".")
        elif dotted not in named and not parameter.get("optional"):
            lacking.append(dotted)
        elif dotted in named and parameter["type"] == "object":
            lacking.append(f"{dotted}.… (an object is filled through its properties)")
    return lacking


def _lookup(value: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
