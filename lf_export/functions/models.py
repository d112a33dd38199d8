"""A Pydantic model of a function's arguments, and the first thing that it says against a call.

The second opinion beside `validate`: what a Python server that declares the same function would say. Strict (no value
is converted, 3.0 is no integer) and closed (no argument that the schema does not name, unless it allows others in so
many words). The names of mistakes are Pydantic's: `missing`, `extra_forbidden`, `int_type`, `literal_error` …

Patterns are matched by Pydantic's own engine, which takes linear time; one that it does not know (look-around,
back-references) is not checked. Checking ends after a fixed number of steps, whatever a schema refers to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Union, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticCustomError, PydanticKnownError, SchemaError

from lf_export.errors import InputError
from lf_export.functions.answers import Call
from lf_export.functions.bounds import MAX_DEPTH, MAX_NODES, MAX_STEPS
from lf_export.functions.spec import FunctionSpec, resolved
from lf_export.functions.validate import types_of
from lf_export.functions.values import json_equal

UNKNOWN_FUNCTION = "unknown_function"
"""The mistake of a call to a function that is not shown: there is no model to ask."""

_PLAIN: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
_Check = Callable[[Any], Any]


def schema_error(call: Call, functions: Sequence[FunctionSpec]) -> str | None:
    """The class of the first mistake in the call by its function's Pydantic model; None where it is valid.

    Raises:
        InputError: a schema that is too large to make a model of.
    """
    spec = next((spec for spec in functions if spec.name == call.name), None)
    return UNKNOWN_FUNCTION if spec is None else arguments_model(spec).error(call.arguments)


@lru_cache(maxsize=512)  # a model takes some 30 kB
def arguments_model(spec: FunctionSpec) -> "ArgumentsModel":
    """The model of a function's arguments.

    Raises:
        InputError: the schema is too large, or makes no model.
    """
    builder = _Builder(spec.parameters)
    try:
        return ArgumentsModel(builder.model(spec.parameters, closed=True), builder.budget)
    except (SchemaError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the schema of {spec.name!r} makes no model: {error}") from error


@dataclass(frozen=True)
class Mistake:
    """One thing that a model says against a call.

    Attributes:
        kind: Pydantic's name of it, such as `missing`.
        place: the keys and positions that lead to it, among them what Pydantic adds for its own unions.
        message: Pydantic's sentence.
    """

    kind: str
    place: tuple[int | str, ...]
    message: str


class _Budget:
    """How much of one check is left."""

    def __init__(self) -> None:
        self.steps = 0
        self.depth = 0


class ArgumentsModel:
    """A Pydantic model and the bound of what a check may cost."""

    def __init__(self, model: type[BaseModel], budget: _Budget) -> None:
        self.model = model
        self._budget = budget

    def error(self, arguments: Mapping[str, Any]) -> str | None:
        """The class of the first mistake; None where there is none."""
        self._budget.steps = self._budget.depth = 0
        try:
            self.model.model_validate(dict(arguments), strict=True)
        except ValidationError as error:
            return _first(error)
        return None

    def mistakes(self, arguments: Mapping[str, Any]) -> list[Mistake]:
        """Every mistake, in Pydantic's order; none where the function would take the arguments."""
        self._budget.steps = self._budget.depth = 0
        try:
            self.model.model_validate(dict(arguments), strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return [Mistake(each["type"], each["loc"], each["msg"]) for each in found]
        return []


def _first(error: ValidationError) -> str:
    return error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]


class _Builder:
    """One walk over a schema; references become models of their own, made when a value reaches them."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.budget = _Budget()
        self._root = root
        self._nodes = 0
        self._references: dict[str, TypeAdapter[Any]] = {}

    def model(self, schema: Mapping[str, Any], *, closed: bool = False, depth: int = 0) -> type[BaseModel]:
        """The model of an object; `closed` even where its schema names no properties."""
        properties = _mapping(schema.get("properties"))
        required = [name for name in _listed(schema.get("required")) if isinstance(name, str)]
        others = schema.get("additionalProperties", not closed and not properties)
        fields: dict[str, Any] = {}
        for at, name in enumerate(dict.fromkeys([*properties, *required])):
            # names of fields are ours: a property may be called anything
            kind = self._annotation(properties.get(name, True), depth + 1)
            fields[f"field{at}"] = (kind, Field(alias=name) if name in required else Field(None, alias=name))
        config = ConfigDict(extra="forbid" if others is False else "allow", strict=True, protected_namespaces=())
        made: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
        return made

    def _annotation(self, schema: Any, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise InputError(f"a schema of more than {MAX_DEPTH} levels or {MAX_NODES} parts, expected a smaller one")
        if schema is False:
            return Annotated[Any, AfterValidator(_refuse)]
        if not isinstance(schema, Mapping):
            return Any
        if isinstance(reference := schema.get("$ref"), str):
            return Annotated[Any, AfterValidator(self._by_reference(reference))]
        kinds = [self._kind(name, schema, depth) for name in types_of(schema)]
        if schema.get("nullable") is True and kinds:
            kinds.append(None)
        checks: list[_Check] = [_bounds_of(schema)]
        if not kinds and isinstance(schema.get("properties"), Mapping):
            checks.append(self._when_object(schema, depth))
        checks += [self._through(self._annotation(part, depth + 1)) for part in _listed(schema.get("allOf"))]
        for keyword in ("anyOf", "oneOf"):
            if parts := [self._annotation(part, depth + 1) for part in _listed(schema.get(keyword))]:
                checks.append(self._through(_union(parts)))
        return Annotated[(_union(kinds) if kinds else Any, *map(AfterValidator, checks))]

    def _kind(self, name: str, schema: Mapping[str, Any], depth: int) -> Any:
        if name == "array":
            return list[self._annotation(schema.get("items", True), depth + 1)]  # type: ignore[misc]
        if name != "object":
            return _PLAIN.get(name, Any)
        others = schema.get("additionalProperties")
        if isinstance(others, Mapping) and not schema.get("properties") and not schema.get("required"):
            return dict[str, self._annotation(others, depth + 1)]  # type: ignore[misc]
        made = self.model(schema, depth=depth)
        if not isinstance(others, Mapping):
            return made
        return Annotated[made, AfterValidator(self._extras(self._annotation(others, depth + 1)))]

    def _through(self, annotation: Any) -> _Check:
        """Another type that the value must have too."""
        adapter = _adapter(annotation)
        return lambda value: self._checked(lambda: adapter, value)

    def _by_reference(self, reference: str) -> _Check:
        def adapter() -> TypeAdapter[Any]:
            if reference not in self._references:
                target = resolved({"$ref": reference}, self._root)
                self._references[reference] = _adapter(self._annotation(target, 1))
            return self._references[reference]

        return lambda value: self._checked(adapter, value)

    def _when_object(self, schema: Mapping[str, Any], depth: int) -> _Check:
        adapter = _adapter(self.model(schema, depth=depth))
        return lambda value: self._checked(lambda: adapter, value) if isinstance(value, dict) else value

    def _extras(self, annotation: Any) -> _Check:
        adapter = _adapter(annotation)

        def check(value: BaseModel) -> BaseModel:
            for each in (value.model_extra or {}).values():
                self._checked(lambda: adapter, each)
            return value

        return check

    def _checked(self, adapter: Callable[[], TypeAdapter[Any]], value: Any) -> Any:
        budget = self.budget
        budget.steps += 1
        if budget.steps > MAX_STEPS or budget.depth > MAX_DEPTH:
            raise PydanticCustomError("too_complex", "the schema takes too many steps to check")
        budget.depth += 1
        try:
            adapter().validate_python(value, strict=True)
        except ValidationError as error:
            raise PydanticCustomError(_first(error), "see the type") from error
        finally:
            budget.depth -= 1
        return value


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _union(kinds: Sequence[Any]) -> Any:
    """Any of the kinds, each tried once and in order."""
    rest = [kind for kind in kinds if kind is not None]
    if not rest:
        return None
    made: Any = Union[tuple(rest)]  # noqa: UP007 - made at run time
    if get_origin(made) is Union:  # equal kinds are one
        made = Annotated[made, Field(union_mode="left_to_right")]
    return made if len(rest) == len(kinds) else Union[made, None]  # noqa: UP007 - the same


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refuse(_: Any) -> Any:
    raise PydanticKnownError("none_required")


def _bounds_of(schema: Mapping[str, Any]) -> _Check:
    """Enums, bounds, lengths and patterns, with Pydantic's names of their mistakes."""
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    numbers = {key: limit for key in _NUMBERS if _is_number(limit := schema.get(key))}
    lengths = {
        key: limit
        for key in ("minLength", "maxLength", "minItems", "maxItems")
        if isinstance(limit := schema.get(key), int) and not isinstance(limit, bool)
    }
    pattern = _pattern(schema.get("pattern"))

    def check(value: Any) -> Any:
        if isinstance(choices, list) and not any(json_equal(value, choice) for choice in choices):
            raise PydanticKnownError("literal_error", {"expected": "one of the enum"})
        if _is_number(value):
            for key, limit in numbers.items():
                name, short, broken = _NUMBERS[key]
                if broken(value, limit):
                    raise PydanticKnownError(name, {short: limit})
        if isinstance(value, str | list):
            _check_length(value, lengths)
        if isinstance(value, str) and pattern is not None:
            try:
                pattern.validate_python(value)
            except ValidationError:
                raise PydanticKnownError("string_pattern_mismatch", {"pattern": schema["pattern"]}) from None
        return value

    return check


def _check_length(value: str | list[Any], lengths: Mapping[str, int]) -> None:
    unit, name = ("Length", "string_too") if isinstance(value, str) else ("Items", "too")
    low, high = lengths.get(f"min{unit}"), lengths.get(f"max{unit}")
    more = {} if isinstance(value, str) else {"field_type": "List", "actual_length": len(value)}
    if low is not None and len(value) < low:
        raise PydanticKnownError(f"{name}_short", {"min_length": low, **more})  # type: ignore[arg-type]
    if high is not None and len(value) > high:
        raise PydanticKnownError(f"{name}_long", {"max_length": high, **more})  # type: ignore[arg-type]


def _pattern(pattern: Any) -> TypeAdapter[Any] | None:
    if not isinstance(pattern, str):
        return None
    try:
        return _adapter(Annotated[str, Field(pattern=pattern)])
    except (SchemaError, ValueError):  # another dialect of regular expressions, or too large a one
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_NUMBERS: Mapping[str, tuple[Any, str, Callable[[Any, Any], bool]]] = {
    "minimum": ("greater_than_equal", "ge", lambda value, limit: value < limit),
    "maximum": ("less_than_equal", "le", lambda value, limit: value > limit),
    "exclusiveMinimum": ("greater_than", "gt", lambda value, limit: value <= limit),
    "exclusiveMaximum": ("less_than", "lt", lambda value, limit: value >= limit),
}
