"""What the pages say is so: links lead somewhere, commands parse, quoted errors and tables are the code's own."""

import ast
import contextlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from lf_export.cli import app
from lf_export.formats.gguf_arch import ARCHITECTURES
from lf_export.stats import items_for_pass
from lf_export.walk.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
PIPELINES = sorted((ROOT / "docs" / "how-to" / "pipelines").glob("*.yml"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FAILURES = ROOT / "docs" / "how-to" / "read-a-failure.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_BREAKS = {"&&", "||", "|", ";", ">", ">>", "<", "&"}
_LEAST_LETTERS = 10  # of a template's own text: fewer would match anything


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in _LINK.findall(_prose(index)) if ":" not in target}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page != index} <= linked


def _commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `lf-export` that stands in a block of shell or YAML."""
    if page.suffix != ".md":
        yield from _shell_commands(page.read_text(encoding="utf-8"))
        return
    for language, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language in {"sh", "yaml", "console"}:
            yield from _shell_commands(block)


def _shell_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `lf-export` in lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(r"(^|[\s/])lf-export\s", line) or line.lstrip().startswith(("docker build", "#")):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        starts = [at for at, word in enumerate(words) if word == "lf-export" or word.endswith("/lf-export")]
        for start in starts:
            ends = [at for at, word in enumerate(words) if word in _BREAKS and at > start]
            yield words[start + 1 : min(ends, default=len(words))]


def _parses(arguments: list[str]) -> None:
    with contextlib.suppress(click.exceptions.Exit), app.make_context("lf-export", list(arguments)) as context:
        inner, command = context, app
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
            assert found is not None
            command = found
            inner = command.make_context(name, rest, parent=inner)
        inner.close()


def _all_commands(command: click.Command = app, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by the words after `lf-export`."""
    yield path, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _all_commands(inner, f"{path} {name}".strip())


@pytest.mark.parametrize("page", [*PAGES, *PIPELINES, *RECIPES], ids=_name)
def test_every_command_line_parses(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # --threads sets it where it is not set
    for arguments in _commands(page):
        try:
            _parses(arguments)
        except click.ClickException as error:
            pytest.fail(f"lf-export {shlex.join(arguments)}: {error.format_message()}")
    capsys.readouterr()


def test_the_tutorial_and_the_how_tos_have_command_lines() -> None:
    assert {_name(page) for page in PAGES if len(list(_commands(page))) >= 2} >= {
        "docs/tutorial/quickstart.md",
        "docs/how-to/own-model.md",
        "docs/how-to/release-pipeline.md",
    }


def test_a_wrong_command_line_is_seen() -> None:
    with pytest.raises(click.UsageError):
        _parses(["merge", "base", "adapter", "--no-such-option", "-o", "merged"])


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_option_in_a_sentence_exists(page: Path) -> None:
    """Inline code such as `--dtype bfloat16`; a command's own name before it is checked too."""
    known = {"--help", "--version"}
    for _, command in _all_commands():
        known |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    # docker's, pip's, what a recipe's script is asked, llama.cpp's, our own scripts'
    foreign = {"--build-arg", "--cpus", "--env", "--time", "--index-url", "--no-index", "--find-links", "--where"}
    foreign |= {"--jinja", "--merge", "--model", "--quick"}
    for code in re.findall(r"`([^`\n]+)`", _prose(page)):
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code))
        assert options - foreign <= known, code
        if found := re.match(r"lf-export ([a-z]+(?: [a-z]+)?)", code):
            words = found[1].split()
            names = {path for path, _ in _all_commands()}
            assert " ".join(words) in names or words[0] in names, code
            if isinstance(app.commands.get(words[0]), click.Group) and len(words) > 1:
                assert " ".join(words) in names, code


@cache
def _templates() -> list[tuple[list[str], re.Pattern[str]]]:
    """Every text in the package as a pattern, in which a field of an f-string stands for anything.

    What locates a mistake may go before it, what explains it may follow in brackets.
    """
    found = []
    for path in (ROOT / "lf_export").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else None for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            if sum(letter.isalpha() for part in parts if part for letter in part) >= _LEAST_LETTERS:
                pattern = "".join(".*" if part is None else re.escape(part) for part in parts)
                found.append(([part for part in parts if part], re.compile(rf"(?:.*: )?{pattern}(?: \(.*\))?")))
    return found


def _is_in_the_code(quote: str) -> bool:
    # most templates fall out at once: a part of theirs is not there
    return any(all(part in quote for part in parts) and each.fullmatch(quote) for parts, each in _templates())


def _quotes() -> list[str]:
    blocks = [block for language, block in _FENCE.findall(FAILURES.read_text(encoding="utf-8")) if language == "text"]
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("error: ").removeprefix("hint: ") for line in lines if "this is a bug" not in line]


@pytest.mark.parametrize("quote", _quotes())
def test_a_quoted_error_is_one_that_the_code_has(quote: str) -> None:
    assert _is_in_the_code(quote)


def test_the_line_about_a_bug_is_the_command_line_s() -> None:
    (line,) = re.findall("^error: this is a bug.*$", FAILURES.read_text(encoding="utf-8"), re.MULTILINE)
    shown = (ROOT / "lf_export" / "cli" / "__init__.py").read_text(encoding="utf-8")
    assert line.replace("…", "{__version__}") in shown


def test_an_error_that_the_code_does_not_have_is_seen() -> None:
    quotes = ("…: existed already", "disk empty while writing …: … free", "nothing of it was left: free some space")
    assert not [quote for quote in quotes if _is_in_the_code(quote)]


@pytest.mark.parametrize(
    ("page", "flips"),
    [("docs/explanation/gate.md", [0.0]), ("docs/how-to/release-pipeline.md", [0.0, 0.01, 0.02, 0.05, 0.1])],
)
def test_the_tables_of_items_are_what_the_statistics_say(page: str, flips: list[float]) -> None:
    rows = re.findall(r"^\| (\d) pp \| (.+) \|$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    written = {int(margin): [int(cell) for cell in cells.split("|")] for margin, cells in rows}
    assert written == {points: [items_for_pass(points / 100, share) for share in flips] for points in (5, 3, 2, 1)}


def test_the_page_on_own_models_names_what_is_known() -> None:
    page = (ROOT / "docs" / "how-to" / "own-model.md").read_text(encoding="utf-8")
    line = page.partition("GPTQ knows the `model_type`s ")[2].partition(". A merge")[0]
    assert re.findall(r"[a-z]+\d?(?:_[a-z]+)?", line.partition(".")[0].replace(" and ", " ")) == list(FAMILIES)
    assert set(re.findall(r"\w+ForCausalLM", line)) == set(ARCHITECTURES)


def test_the_page_on_installing_has_the_extras_that_there_are_and_what_they_bring() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", page, re.MULTILINE)
    said = {name: set(re.findall(r"[\w-]+", brings)) for name, brings in rows}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(said) == set(extras)
    for name in set(extras) - {"onnx-gpu"}:
        assert said[name] == {re.split(r"[<>=\[]", each)[0] for each in extras[name]}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("Extras:")[2].partition(". [Install]")[0]
    assert set(re.findall("`([^`]+)`", readme)) == set(extras)


def test_the_page_on_containers_has_the_build_arguments_that_there_are() -> None:
    page = (ROOT / "docs" / "how-to" / "docker.md").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    names = "".join(re.findall(r"^\| (`[A-Z].+?) \|", page, re.MULTILINE))
    assert set(re.findall("`([A-Z_]+)`", names)) == set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    for name in ("BASE", "EXTRAS"):
        (default,) = re.findall(rf"^ARG {name}=(\S+)$", dockerfile, re.MULTILINE)
        assert f"| `{name}` | `{default}` |" in page


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert names == kept
    assert all((ROOT / name).exists() for name in names)
