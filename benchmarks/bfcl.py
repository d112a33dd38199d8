"""Our BFCL score against the leaderboard's own AST checker, on every question of its non-live single-turn categories.

For each question many answers: the reference, every allowed value of every argument, everything that may be left out
left out, and seeded mutations of these (types, missing and extra arguments, case, punctuation, order, counts, nesting,
integers for floats, tuples for lists, empty values, source text that is cut or rewritten). Both sides see the same
calls. The checker is imported from the wheel; of its dependencies only the table of models is needed, and that is
replaced by one that renames no function. An answer on which the checker itself ends with a traceback is counted apart.
For the questions that no function serves, the leaderboard's own test of an abstention is taken out of its source.

    pip download --no-deps bfcl-eval==2026.3.23
    python benchmarks/bfcl.py --wheel bfcl_eval-2026.3.23-py3-none-any.whl [--answers 300] [--seed 0] [--json FILE]
"""

import argparse
import ast
import copy
import random
import sys
import time
import types
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bfcl_answers import answers_for, texts
from ran import environment, leave

CATEGORY = {"python": "PYTHON", "java": "JAVA", "javascript": "JAVASCRIPT"}


def official(wheel: Path) -> tuple[Callable[..., Any], Any]:
    """The leaderboard's checker and its enumeration of languages, from the wheel."""
    names = types.ModuleType("bfcl_eval.constants.model_config")

    class Models(dict[str, Any]):
        """Every model calls functions by their names as they are."""

        def __missing__(self, _: str) -> Any:
            return types.SimpleNamespace(underscore_to_dot=False)

    names.__dict__["MODEL_CONFIG_MAPPING"] = Models()
    sys.modules[names.__name__] = names
    sys.path.insert(0, str(wheel))
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # type: ignore[import-not-found]

    return ast_checker, Language


def official_abstention(wheel: Path) -> Callable[..., Any]:
    """The leaderboard's test of an abstention, from the source of two of its modules, without their imports."""
    wanted = {
        "bfcl_eval/utils.py": {"is_function_calling_format_output", "is_empty_output"},
        "bfcl_eval/eval_checker/eval_runner.py": {"_evaluate_single_relevance_entry"},
    }
    scope: dict[str, Any] = {
        "BaseHandler": object,
        "ReturnFormat": types.SimpleNamespace(PYTHON="python"),
    }
    with zipfile.ZipFile(wheel) as archive:
        for name, functions in wanted.items():
            tree = ast.parse(archive.read(name))
            tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in functions]
            exec(compile(tree, name, "exec"), scope)  # noqa: S102 - the leaderboard's own code is what is compared with
    return scope["_evaluate_single_relevance_entry"]


def documents(wheel: Path) -> dict[str, tuple[list[Any], list[Any]]]:
    """The functions and possible answers of each question, as the leaderboard has them."""
    import json

    from lf_export.calibration.bfcl import CATEGORIES

    found: dict[str, tuple[list[Any], list[Any]]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for category in CATEGORIES:
            rows = [json.loads(line) for line in archive.read(f"bfcl_eval/data/BFCL_v4_{category}.json").splitlines()]
            truths = {}
            if category != "irrelevance":
                lines = archive.read(f"bfcl_eval/data/possible_answer/BFCL_v4_{category}.json").splitlines()
                truths = {row["id"]: row["ground_truth"] for row in map(json.loads, lines)}
            found |= {row["id"]: (row["function"], truths.get(row["id"], [])) for row in rows}
    return found


def compare_calls(wheel: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every answer to every question that expects calls, by both."""
    from lf_export.calibration.bfcl import read_bfcl
    from lf_export.functions.answers import calling
    from lf_export.functions.bfcl import bfcl_right
    from lf_export.functions.compare import compare

    check, language = official(wheel)
    known = documents(wheel)
    rows, digest = read_bfcl(wheel)
    result: dict[str, Any] = {"categories": {}, "disagreements": [], "references_refused": [], "digest": digest}
    for category in dict.fromkeys(row.category for row in rows if row.possible):
        counts: Counter[str] = Counter()
        for row in (row for row in rows if row.category == category):
            functions, truth = known[row.id]
            rng = random.Random(f"{options.seed}:{row.id}")  # noqa: S311 - reproducible answers
            counts["questions"] += 1
            for number, calls in enumerate(answers_for(row, rng, options.answers)):
                ours = bfcl_right(calls, row.possible)
                said = [{call.name: dict(call.arguments)} for call in calls]
                speech = getattr(language, CATEGORY[row.possible[0].language])
                try:
                    theirs = check(
                        copy.deepcopy(functions), copy.deepcopy(said), copy.deepcopy(truth), speech, category, "any"
                    )["valid"]
                except Exception:  # noqa: BLE001 - whatever the checker ends with
                    counts["checker_failed"] += 1
                    continue
                strict = (
                    compare(
                        calling(*calls),
                        [call.reference() for call in row.possible],
                        row.functions,
                        possible=row.possible,
                    ).exact
                    if options.strict
                    else None
                )
                counts["answers"] += 1
                counts["right"] += theirs
                counts["strict_only"] += bool(strict and not theirs)
                counts["bfcl_only"] += bool(theirs and strict is False)
                if number == 0 and not theirs:
                    result["references_refused"].append(row.id)
                if ours != theirs:
                    counts["disagreements"] += 1
                    result["disagreements"].append({"id": row.id, "calls": said, "ours": ours, "theirs": theirs})
        result["categories"][category] = dict(counts)
    return result


def compare_abstentions(wheel: Path, options: argparse.Namespace) -> dict[str, int]:
    """Every answer to every question that no function serves, by both."""
    from lf_export.calibration.bfcl import read_bfcl
    from lf_export.functions.answers import read_answer
    from lf_export.functions.bfcl import bfcl_abstained

    judge = official_abstention(wheel)
    rows, _ = read_bfcl(wheel)
    counts: Counter[str] = Counter()
    for row in (row for row in rows if not row.possible):
        counts["questions"] += 1
        rng = random.Random(f"{options.seed}:{row.id}")  # noqa: S311 - reproducible answers
        for text in texts(row, rng):
            answer = read_answer(text)
            theirs = judge(Decoder(), row.id, answer.calls, row.messages, "any", row.category)["valid"]
            ours = bfcl_abstained(answer)
            counts["answers"] += 1
            counts["right"] += theirs
            counts["bfcl_only"] += theirs and answer.kind != "prose"
            counts["disagreements"] += ours != theirs
    return dict(counts)


class Decoder:
    """What a model's own part of the leaderboard does: calls where the answer reads as such, else an error."""

    def decode_ast(self, calls: Sequence[Any], **_: Any) -> list[Mapping[str, Any]]:
        """The calls in the leaderboard's form."""
        if not calls:
            raise ValueError("no calls")
        return [{call.name: dict(call.arguments)} for call in calls]


def show(result: Mapping[str, Any]) -> None:
    """The table."""
    head = ("category", "questions", "answers", "right", "BFCL only", "strict only", "checker failed", "disagreements")
    print(("{:20}" + "{:>16}" * 7).format(*head))
    for category, counts in result["categories"].items():
        keys = ("questions", "answers", "right", "bfcl_only", "strict_only", "checker_failed", "disagreements")
        print(("{:20}" + "{:16,}" * 7).format(category, *(counts.get(key, 0) for key in keys)))
    print(
        f"\n{result['answers']:,} answers compared, {result['disagreement_count']} disagreements, "
        f"{result['seconds']:.0f} s"
    )
    print(f"reference answers that the checker itself refuses: {', '.join(result['references_refused']) or 'none'}")
    for each in result["disagreements"][:20]:
        print(each)


def main() -> None:
    """Compare, print, and end with 0 where no answer is judged otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=300, help="mutated answers for each question")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--strict", action=argparse.BooleanOptionalAction, default=True, help="the strict score beside it"
    )
    parser.add_argument("--json", type=Path, help="write the counts there")
    options = parser.parse_args()
    started = time.monotonic()
    result = compare_calls(options.wheel, options)
    result["categories"]["irrelevance"] = compare_abstentions(options.wheel, options)
    result["answers"] = sum(counts["answers"] for counts in result["categories"].values())
    result["disagreement_count"] = sum(counts.get("disagreements", 0) for counts in result["categories"].values())
    result |= {"seconds": time.monotonic() - started, "wheel": options.wheel.name, "seed": options.seed}
    result |= {"answers_per_question": options.answers} | environment("lf-export")
    show(result)
    result["disagreements"] = result["disagreements"][:20]
    leave(result, options.json, met=not result["disagreement_count"])


if __name__ == "__main__":
    main()
