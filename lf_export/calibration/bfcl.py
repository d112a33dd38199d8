"""The Berkeley Function-Calling Leaderboard's questions as a suite, from its wheel or a folder of its data.

Only the JSON is read: the package is neither installed nor imported, and its dependencies are not needed. The
categories are the non-live ones of a single turn.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_export.errors import InputError, MissingError
from lf_export.functions.answers import loads
from lf_export.functions.possible import Language, PossibleCall
from lf_export.functions.spec import FunctionSpec, from_openai

CATEGORIES: Mapping[str, Language] = {
    "simple_python": "python",
    "simple_java": "java",
    "simple_javascript": "javascript",
    "multiple": "python",
    "parallel": "python",
    "parallel_multiple": "python",
    "irrelevance": "python",
}
"""The categories by name, with the language that arguments are written in."""

_DATA = "bfcl_eval/data/"
_LARGEST_FILE = 64 << 20
_JSON_TYPES = {
    "dict": "object", "HashMap": "object", "Hashtable": "object",
    "float": "number", "double": "number",
    "tuple": "array", "list": "array", "Array": "array", "ArrayList": "array", "Queue": "array", "Stack": "array",
    "byte": "integer", "short": "integer", "long": "integer", "Bigint": "integer", "int": "integer",
    "bool": "boolean", "Boolean": "boolean",
    "String": "string", "char": "string", "any": "string", "Any": "string", "str": "string",
}  # fmt: skip


@dataclass(frozen=True)
class BfclRow:
    """A question: its messages, its functions as a model sees them, and the calls that are right, none for prose."""

    id: str
    category: str
    messages: tuple[Mapping[str, Any], ...]
    functions: tuple[FunctionSpec, ...]
    possible: tuple[PossibleCall, ...]


def read_bfcl(source: Path) -> tuple[list[BfclRow], str]:
    """Every question of the categories that the wheel or folder `source` holds, and a digest of the files read.

    A folder may be the unpacked wheel or its `bfcl_eval/data`.

    Raises:
        InputError: no such data in it, or rows that do not read; every row is named.
        MissingError: no such file or folder.
    """
    files = _files(source)
    digest = hashlib.sha256()
    rows: list[BfclRow] = []
    problems: list[str] = []

    def lines_of(name: str, at: str) -> list[Any]:
        data = files[name]()
        digest.update(data)
        found = []
        for number, line in enumerate(data.decode("utf-8", "replace").removesuffix("\n").split("\n"), 1):
            try:
                row = loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                    raise ValueError("expected an object with an id")  # noqa: TRY301, TRY004
                found.append(row)
            except ValueError as error:
                problems.append(f"{at}:{number}: not a question: {error}")
        return found

    for category in CATEGORIES:
        question = next((name for name in files if re.fullmatch(rf"BFCL_v\d+_{category}\.json", name)), None)
        if question is None:
            continue
        answers: dict[str, Any] = {}
        if (answer_file := f"possible_answer/{question}") in files:
            answers = {row["id"]: row.get("ground_truth") for row in lines_of(answer_file, f"{source}:{answer_file}")}
        for row in lines_of(question, f"{source}:{question}"):
            try:
                rows.append(bfcl_row(row, category, answers))
            except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
                what = error.message if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                problems.append(f"{source}:{question}: {row['id']}: {what}")
    if not rows and not problems:
        problems.append(f"{source}: no questions of BFCL, expected files such as BFCL_v4_simple_python.json")
    if problems:
        raise InputError.of(problems[:20])
    return rows, digest.hexdigest()


def _files(source: Path) -> dict[str, Callable[[], bytes]]:
    """The data files by name relative to the data's folder, unread."""
    if source.is_dir():
        root = next(
            (each for each in (source / _DATA, source / "data", source) if any(each.glob("BFCL_*.json"))), source
        )
        return {path.relative_to(root).as_posix(): path.read_bytes for path in sorted(root.rglob("BFCL_*.json"))}
    if not source.exists():
        raise MissingError(f"{source}: no such file or folder", "pip download --no-deps bfcl-eval")
    try:
        with zipfile.ZipFile(source) as archive:
            large = [info.filename for info in archive.infolist() if info.file_size > _LARGEST_FILE]
            names = [name for name in archive.namelist() if name.startswith(_DATA) and name.endswith(".json")]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{source}: expected a wheel or a folder: {error}") from error
    return {name.removeprefix(_DATA): _member(source, name) for name in names if name not in large}


def _member(source: Path, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipfile.ZipFile(source) as archive:
            return archive.read(name)

    return read


def bfcl_row(row: Mapping[str, Any], category: str, answers: Mapping[str, Any]) -> BfclRow:
    """A question as the leaderboard writes it, with the possible answers by id.

    Raises:
        InputError, KeyError, TypeError, ValueError: another form.
    """
    language = CATEGORIES[category]
    documents: Sequence[Mapping[str, Any]] = row["function"]
    by_name: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        by_name.setdefault(document["name"], document)
    functions = from_openai([_shown(document, language) for document in documents], "function")
    wanted = answers.get(row["id"])
    if wanted is None and category != "irrelevance":
        raise InputError("no possible answer has this id")
    possible = tuple(_possible(one, by_name, language) for one in wanted or ())
    (messages,) = row["question"]  # several turns are other categories
    return BfclRow(row["id"], category, tuple(messages), functions, possible)


def _possible(answer: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]], language: Language) -> PossibleCall:
    ((name, arguments),) = answer.items()
    if name not in by_name:
        raise InputError(f"the answer calls {name!r}, which is not among the functions")
    parameters = by_name[name]["parameters"]
    return PossibleCall(name, arguments, parameters["properties"], tuple(parameters.get("required", ())), language)


def _shown(document: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """The function as a model sees it: JSON Schema types; for Java and JavaScript every argument is source text."""
    parameters = document["parameters"]
    properties = {
        name: _json_schema(schema) if language == "python" else _source_text(schema, language)
        for name, schema in parameters["properties"].items()
    }
    schema = {"type": "object", "properties": properties, "required": list(parameters.get("required", ()))}
    return {"name": document["name"], "description": document.get("description", ""), "parameters": schema}


def _json_schema(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    kind = node.get("type")
    shown = {key: value for key, value in node.items() if key not in {"optional", "required"}}
    if isinstance(kind, str):
        shown["type"] = _JSON_TYPES.get(kind, kind)
    if isinstance(node.get("properties"), Mapping):
        shown["properties"] = {name: _json_schema(child) for name, child in node["properties"].items()}
        if isinstance(node.get("required"), list):
            shown["required"] = node["required"]
    if "items" in node:
        shown["items"] = _json_schema(node["items"])
    return shown


def _source_text(node: Mapping[str, Any], language: Language) -> dict[str, Any]:
    name = {"java": "Java", "javascript": "JavaScript"}[language]
    kind = node["type"]
    items = f" of {node['items'].get('type', 'any')}" if isinstance(node.get("items"), Mapping) else ""
    typed = f"{name} source text" if kind == "any" else f"{name} source text of type {kind}{items}"
    described = node.get("description", "").rstrip()
    return {"type": "string", "description": f"{described} ({typed})".strip()}
