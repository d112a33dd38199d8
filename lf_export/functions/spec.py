"""Function specifications: OpenAI tools and the `llama_functions` list form, both as JSON Schema.

Laws: `from_openai([to_openai(s)]) == (s,)`, and `to_llama_functions` undoes `from_llama_functions` byte for byte
once dumped, for rows in the published form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lf_export.errors import InputError
from lf_export.functions.bounds import size_problem
from lf_export.provenance import digest_of

_MAX_REFERENCES = 16


@dataclass(frozen=True)
class FunctionSpec:
    """A function that a model may call; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(hash=False)


def from_openai(tools: Any, where: str = "tools") -> tuple[FunctionSpec, ...]:
    """The functions of an OpenAI `tools` list; a bare function object without the `type` envelope is taken too.

    Raises:
        InputError: not a list of tools; every mistake, a line each, after `where`.
    """
    problems: list[str] = []
    specs: list[FunctionSpec] = []
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise InputError(f"{where}: expected a list of tools, found {type(tools).__name__}")
    for position, tool in enumerate(tools):
        at = f"{where}[{position}]"
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping):
            problems.append(f"{at}: expected an object with 'function'")
            continue
        parameters = function.get("parameters")
        parameters = {"type": "object", "properties": {}} if parameters is None else parameters
        found = _name_problems(at, function) + _schema_problems(f"{at}.parameters", parameters)
        problems += found
        if not found:
            specs.append(FunctionSpec(function["name"], function.get("description") or "", parameters))
    return _checked(specs, problems, where)


def to_openai(spec: FunctionSpec) -> dict[str, Any]:
    """The function as an OpenAI tool."""
    return {
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)},
    }


def from_llama_functions(functions: Any, where: str = "functions") -> tuple[FunctionSpec, ...]:
    """The functions of a `llama_functions` block, whose `parameters` is a list of named schemas.

    `optional` absent means required, at the top and in nested properties. The dataset is `marclove/llama_functions`.

    Raises:
        InputError: another form; every mistake, a line each, after `where`.
    """
    problems: list[str] = []
    specs: list[FunctionSpec] = []
    if not isinstance(functions, Sequence) or isinstance(functions, str | bytes):
        raise InputError(f"{where}: expected a list of functions, found {type(functions).__name__}")
    for position, function in enumerate(functions):
        at = f"{where}[{position}]"
        if not isinstance(function, Mapping):
            problems.append(f"{at}: expected an object, found {type(function).__name__}")
            continue
        entries = function.get("parameters", [])
        found = _name_problems(at, function) + _entry_problems(f"{at}.parameters", entries)
        problems += found
        if found:
            continue
        listed = {entry["name"]: _without(entry, "name") for entry in entries}
        schema = _required_from_optional({"type": "object", "properties": listed})
        specs.append(FunctionSpec(function["name"], function.get("description") or "", schema))
    return _checked(specs, problems, where)


def to_llama_functions(spec: FunctionSpec) -> dict[str, Any]:
    """The function in the `llama_functions` form: a list of parameters, the keys of each in alphabetical order.

    An empty description is left out. Keywords of the top-level schema other than `properties` and `required`
    have no place in this form and are lost.
    """
    schema = _optional_from_required(spec.parameters)
    entries = [_sorted({"name": name, **node}) for name, node in schema.get("properties", {}).items()]
    described = {"description": spec.description} if spec.description else {}
    return {"name": spec.name, **described, "parameters": entries}


def schema_hash(spec: FunctionSpec) -> str:
    """A fingerprint of what a function is: its name and the names and types of its parameters, nested too.

    Descriptions, order, enums and the writing of the name (`getWeather`, `get_weather`) do not enter, so a
    function that was only reworded counts as the same one.
    """
    name = "".join(letter for letter in spec.name.lower() if letter.isalnum())
    return digest_of([name, _shape(spec.parameters)])


def resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema that `schema` stands for: a `$ref` into `root` is followed, a circle of them allows anything."""
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        node: Any = root
        for part in reference[2:].split("/") if reference != "#" else ():
            key = part.replace("~1", "/").replace("~0", "~")
            node = node.get(key, True) if isinstance(node, Mapping) else True
        schema = node
    return True


def _shape(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return None
    kind = node.get("type")
    shape: dict[str, Any] = {"type": sorted(map(str, kind)) if isinstance(kind, list) else kind}
    if isinstance(properties := node.get("properties"), Mapping):
        shape["properties"] = {name: _shape(child) for name, child in properties.items()}
    if "items" in node:
        shape["items"] = _shape(node["items"])
    return shape


def _name_problems(at: str, function: Mapping[str, Any]) -> list[str]:
    problems = []
    if not isinstance(function.get("name"), str) or not function["name"]:
        problems.append(f"{at}.name: expected a function's name, found {function.get('name')!r}")
    if not isinstance(function.get("description", ""), str | None):
        problems.append(f"{at}.description: expected text, found {type(function['description']).__name__}")
    return problems


def _schema_problems(at: str, schema: Any) -> list[str]:
    if not isinstance(schema, Mapping):
        return [f"{at}: expected a JSON Schema object, found {type(schema).__name__}"]
    if problem := size_problem(schema):
        return [f"{at}: {problem}, expected a smaller schema"]
    if schema.get("type", "object") != "object":
        return [f"{at}: expected a JSON Schema of type object, found type {schema['type']!r}"]
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or not all(isinstance(node, Mapping | bool) for node in properties.values()):
        return [f"{at}.properties: expected an object of schemas"]
    required = schema.get("required", [])
    if not isinstance(required, Sequence) or isinstance(required, str):
        return [f"{at}.required: expected a list of names"]
    unknown = [str(name) for name in required if not isinstance(name, str) or name not in properties]
    return [f"{at}.required: no property is named {', '.join(unknown)}"] if unknown else []


def _entry_problems(at: str, entries: Any) -> list[str]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return [f"{at}: expected a list of parameters, found {type(entries).__name__}"]
    if problem := size_problem(entries):
        return [f"{at}: {problem}, expected a smaller schema"]
    problems = []
    names: set[str] = set()
    for position, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not name:
            problems.append(f"{at}[{position}]: expected an object with a 'name'")
        elif name in names:
            problems.append(f"{at}[{position}]: a second parameter named {name!r}")
        else:
            names.add(name)
    return problems


def _checked(specs: list[FunctionSpec], problems: list[str], where: str) -> tuple[FunctionSpec, ...]:
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            problems.append(f"{where}: a second function named {spec.name!r}")
        seen.add(spec.name)
    if problems:
        raise InputError.of(problems)
    return tuple(specs)


def _required_from_optional(node: Any) -> Any:
    """`optional: true` on properties becomes the object's `required` list, all the way down."""
    if not isinstance(node, Mapping):
        return node
    converted = {key: value for key, value in node.items() if key != "optional"}
    if isinstance(properties := node.get("properties"), Mapping):
        converted["properties"] = {name: _required_from_optional(child) for name, child in properties.items()}
        if "required" not in node:
            converted["required"] = [name for name, child in properties.items() if not _is_optional(child)]
    if "items" in node:
        converted["items"] = _required_from_optional(node["items"])
    return converted


def _optional_from_required(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    converted = dict(node)
    if isinstance(properties := node.get("properties"), Mapping):
        required = converted.pop("required", [])
        converted["properties"] = {
            name: _optional_from_required(child) | ({} if name in required else {"optional": True})
            if isinstance(child, Mapping)
            else child
            for name, child in properties.items()
        }
    if "items" in node:
        converted["items"] = _optional_from_required(node["items"])
    return converted


def _is_optional(node: Any) -> bool:
    return isinstance(node, Mapping) and node.get("optional") is True


def _without(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != key}


def _sorted(node: Any) -> Any:
    """The keywords of a schema in alphabetical order; the properties themselves keep theirs."""
    if not isinstance(node, Mapping):
        return node
    ordered = {key: node[key] for key in sorted(node)}
    if isinstance(properties := node.get("properties"), Mapping):
        ordered["properties"] = {name: _sorted(child) for name, child in properties.items()}
    if "items" in node:
        ordered["items"] = _sorted(node["items"])
    return ordered
