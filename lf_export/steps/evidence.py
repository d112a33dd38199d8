"""What a report keeps for whoever asks why: the texts of items that flipped, and the quantizer's errors by layer."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from lf_export.calibration.suites import EvalItem
from lf_export.functions.spec import to_openai
from lf_export.provenance import digest_of
from lf_export.report.evidence import ItemText, LayerError, LayerErrors, Texts, Turn
from lf_export.report.model import ArtifactReport
from lf_export.steps.prompts import Prompt

_LONGEST_TURN = 4_000
_LONGEST_FUNCTION = 4_000
# Characters of all texts together: report.json stays small beside the answers of a thousand items.
_ROOM = 1_500_000

_LAYER = re.compile(r"\.(\d+)\.")
_CUT = " […]"


def item_texts(prompts: Sequence[Prompt], baseline: ArtifactReport, artifacts: Sequence[ArtifactReport]) -> Texts:
    """The texts of every item that any artifact gets right and the baseline wrong, or the other way round.

    Functions that several items show are kept once. Where the texts would be too long together, the later items are
    left out and counted.
    """
    flipped = _flipped(baseline, artifacts)
    functions: dict[str, str] = {}
    items: list[ItemText] = []
    room, left_out = _ROOM, 0
    for prompt in prompts:
        item = prompt.item
        if item.id not in flipped:
            continue
        shown = {digest_of(tool)[:16]: _function(tool) for tool in map(to_openai, item.functions)}
        text = _text(item, list(shown))
        fresh = {key: value for key, value in shown.items() if key not in functions}
        cost = len(text.model_dump_json()) + sum(map(len, fresh.values()))
        if cost > room:
            left_out += 1
            continue
        room -= cost
        functions |= fresh
        items.append(text)
    return Texts(functions=functions, items=items, left_out=left_out)


def layer_errors(made: Mapping[str, Any], file: str = "") -> LayerErrors | None:
    """The errors in an artifact's manifest, by layer; None where its format notes none.

    Args:
        made: the manifest.
        file: of a folder with several GGUF files, the one that is meant.
    """
    facts = made.get("artifact") or {}
    files = facts.get("files")
    if isinstance(files, Mapping) and files:
        facts = files.get(file) or next(iter(files.values()))
    linears = facts.get("linears")
    if not isinstance(linears, Mapping) or not linears:
        return None
    plain: Literal["rtn", "imatrix"] = "imatrix" if "imatrix_error" in next(iter(linears.values())) else "rtn"
    return LayerErrors(plain=plain, layers=list(_layers(linears, f"{plain}_error")))


def _layers(linears: Mapping[str, Mapping[str, Any]], plain: str) -> Iterator[LayerError]:
    grouped: dict[int | None, list[str]] = defaultdict(list)
    for name, facts in linears.items():
        if isinstance(facts.get("error"), float | int):
            found = _LAYER.search(f".{name}")
            grouped[int(found[1]) if found else None].append(name)
    for layer, names in sorted(grouped.items(), key=lambda each: (each[0] is None, each[0] or 0)):
        worst = max(names, key=lambda name: linears[name]["error"])
        plains = [float(linears[name][plain]) for name in names if isinstance(linears[name].get(plain), float | int)]
        yield LayerError(
            layer=layer,
            linears=len(names),
            error=fmean(float(linears[name]["error"]) for name in names),
            plain_error=fmean(plains) if plains else None,
            worst=worst,
            worst_error=float(linears[worst]["error"]),
        )


def _flipped(baseline: ArtifactReport, artifacts: Sequence[ArtifactReport]) -> set[str]:
    right = {item.id: item.correct for item in baseline.own_items}
    return {
        item.id
        for artifact in artifacts
        for item in artifact.own_items
        if right.get(item.id, item.correct) != item.correct
    }


def _text(item: EvalItem, functions: list[str]) -> ItemText:
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in item.expected.calls]
    return ItemText(
        suite="calls" if calls else "no_call",
        id=item.id,
        functions=functions,
        prompt=[
            Turn(role=str(message.get("role", "")), text=_cut(_said(message), _LONGEST_TURN))
            for message in item.messages
        ],
        expected_calls=calls,
        expected_text=None if calls else _cut(item.expected.text, _LONGEST_TURN),
    )


def _said(message: Mapping[str, Any]) -> str:
    calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join([*([str(message["content"])] if message.get("content") else []), *calls])


def _function(tool: Mapping[str, Any]) -> str:
    return _cut(json.dumps(tool["function"], ensure_ascii=False, indent=1), _LONGEST_FUNCTION)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + _CUT
