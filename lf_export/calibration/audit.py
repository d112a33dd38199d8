"""What went into a calibration: counts, losses, overlap with evaluation, and a digest that artifacts carry."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from lf_export.calibration.mixing import Dropped, Mix
from lf_export.calibration.samples import Sample
from lf_export.calibration.suites import EvalItem
from lf_export.calibration.tokens import TokenClass, TokenizedSample
from lf_export.errors import InputError
from lf_export.functions.spec import schema_hash
from lf_export.provenance import canonical_json

_SHOWN = 5


@dataclass(frozen=True)
class Audit:
    """The facts of a calibration set.

    Attributes:
        dialect: how the samples were rendered.
        seed: what shuffled them.
        samples: how many were taken, by side (`call`, `chat`).
        tokens: how many tokens these have, by side.
        classes: how many tokens these have, by token class.
        categories: how many samples were taken, by category.
        call_tokens_offered: tokens inside calls in all samples of the sources.
        call_tokens_dropped: those of them in samples that do not fit.
        functions_offered: distinct functions that the sources call.
        functions_called: names of the functions that the taken samples call, in alphabetical order.
        schemas: hashes of all functions that the taken samples show, sorted; none is in an evaluation suite.
        suites: the evaluation suites that were compared.
        dropped: ids of samples that do not fit, with their lengths in tokens.
        ran_out: the side that had no more samples before the budget was used, or "".
        digest: sha256 over token ids, classes and weights.
    """

    dialect: str
    seed: int
    max_seq_length: int
    samples: Mapping[str, int]
    tokens: Mapping[str, int]
    classes: Mapping[str, int]
    categories: Mapping[str, int]
    call_tokens_offered: int
    call_tokens_dropped: int
    functions_offered: int
    functions_called: tuple[str, ...]
    schemas: tuple[str, ...]
    suites: tuple[str, ...]
    dropped: tuple[tuple[str, int], ...]
    ran_out: str
    digest: str

    def to_json(self) -> dict[str, Any]:
        """The audit as JSON values: lists, no tuples."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Audit":
        """The audit that `to_json` wrote.

        Raises:
            InputError: fields are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if value.keys() != names:
            odd = ", ".join(sorted(names ^ value.keys()))
            raise InputError(f"not a calibration audit of this version: {odd} missing or unknown")
        listed = {name: tuple(item) for name, item in value.items() if isinstance(item, list)}
        listed["dropped"] = tuple((name, length) for name, length in value["dropped"])
        return cls(**{**value, **listed})

    @property
    def call_tokens(self) -> int:
        """Tokens inside calls in the taken samples."""
        return sum(self.classes[kind.name.lower()] for kind in TokenClass if kind >= TokenClass.NAME)


def audit_of(
    mixed: Mix,
    offered: Sequence[Sample],
    weights: Mapping[TokenClass, float],
    *,
    call_tokens_offered: int,
    dialect: str,
    seed: int,
    max_seq_length: int,
    suites: Sequence[str] = (),
) -> Audit:
    """The audit of what `mixed` took out of the samples `offered`."""
    by_id = {sample.id: sample for sample in offered}
    taken = [by_id[candidate.tokens.name] for candidate in mixed.taken]
    counts = np.zeros(len(TokenClass), dtype=np.int64)
    tokens = Counter[str]()
    for candidate in mixed.taken:
        tokens[candidate.side] += len(candidate.tokens)
        counts += candidate.tokens.counts
    sides = Counter(candidate.side for candidate in mixed.taken)
    return Audit(
        dialect=dialect,
        seed=seed,
        max_seq_length=max_seq_length,
        samples={"call": sides["call"], "chat": sides["chat"]},
        tokens={"call": tokens["call"], "chat": tokens["chat"]},
        classes={kind.name.lower(): int(counts[kind]) for kind in TokenClass},
        categories=dict(sorted(Counter(candidate.category for candidate in mixed.taken).items())),
        call_tokens_offered=call_tokens_offered,
        call_tokens_dropped=sum(one.call_tokens for one in mixed.dropped),
        functions_offered=len(_called(offered)),
        functions_called=tuple(sorted(_called(taken))),
        schemas=tuple(sorted({schema_hash(spec) for sample in taken for spec in sample.functions})),
        suites=tuple(suites),
        dropped=tuple((one.name, one.tokens) for one in mixed.dropped),
        ran_out=mixed.ran_out or "",
        digest=digest_of_tokens([candidate.tokens for candidate in mixed.taken], weights),
    )


def check_losses(audit: Audit, dropped: Sequence[Dropped], *, allow_dropped: float, min_call_tokens: int) -> None:
    """Refuse a calibration that lost calls.

    Raises:
        InputError: more than the fraction `allow_dropped` of the call tokens is in samples that do not fit, or
            the taken samples have fewer than `min_call_tokens`.
    """
    lost = audit.call_tokens_dropped
    if lost > allow_dropped * audit.call_tokens_offered:
        rows = sorted((one for one in dropped if one.call_tokens), key=lambda one: -one.tokens)
        named = ", ".join(f"{one.name} ({one.tokens} tokens)" for one in rows[:_SHOWN])
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        fraction = math.ceil(1000 * lost / audit.call_tokens_offered) / 1000
        raise InputError(
            f"{lost} of {audit.call_tokens_offered} call tokens are lost: {len(rows)} samples with calls are longer "
            f"than max_seq_length {audit.max_seq_length}: {named}{more}",
            f"--max-seq-length {rows[0].tokens} keeps them all; --allow-dropped {fraction:.3f} accepts the loss",
        )
    if audit.call_tokens < min_call_tokens:
        raise InputError(
            f"only {audit.call_tokens} tokens are inside function calls, expected at least {min_call_tokens}",
            "give more samples that call functions, or a larger share, budget or max_seq_length",
        )


def check_overlap(
    samples: Sequence[Sample], items: Mapping[str, Sequence[EvalItem]], allowed: Sequence[str] = ()
) -> tuple[str, ...]:
    """Refuse a calibration that knows the evaluation: its functions by schema, or its requests by their words.

    Args:
        samples: the calibration's samples.
        items: the evaluation items of each suite, by the suite's path or name.
        allowed: names of functions that may be in both.

    Returns:
        The suites that share nothing at all.

    Raises:
        InputError: every function and request that is in both, a line each, at most 5 of a kind and suite.
    """
    schemas: dict[str, str] = {}
    requests: dict[str, str] = {}
    for sample in samples:
        schemas |= {schema_hash(spec): sample.id for spec in sample.functions}
        requests |= dict.fromkeys(_requests(sample.messages), sample.id)
    problems: list[str] = []
    clean: list[str] = []
    for suite, members in items.items():
        functions = {schema_hash(spec): spec.name for item in members for spec in item.functions}
        if not any(found in schemas for found in functions):
            clean.append(suite)
        shared = [
            f"{suite}: the function {name!r} is in the calibration sample {schemas[found]} too"
            for found, name in sorted(functions.items(), key=lambda pair: pair[1])
            if found in schemas and name not in allowed
        ]
        asked = [
            f"{suite}: the request of item {item.id} is in the calibration sample {requests[words]} too"
            for item in members
            for words in _requests(item.messages)
            if words in requests
        ]
        for found in (shared, asked):
            problems += found[:_SHOWN]
            if len(found) > _SHOWN:
                problems.append(f"{suite}: and {len(found) - _SHOWN} more")
    if problems:
        raise InputError.of(problems, "leave these samples out: who calibrates on the evaluation measures nothing")
    return tuple(clean)


def digest_of_tokens(samples: Sequence[TokenizedSample], weights: Mapping[TokenClass, float]) -> str:
    """The sha256 over lengths, token ids and classes in order, and the weights; names do not enter."""
    digest = hashlib.sha256(canonical_json({kind.name: float(weights[kind]) for kind in TokenClass}).encode())
    for sample in samples:
        digest.update(np.int64(len(sample)).astype("<i8").tobytes())
        digest.update(sample.ids.astype("<i4").tobytes())
        digest.update(sample.classes.tobytes())
    return digest.hexdigest()


def render_audit(audit: Audit) -> str:
    """The audit as plain text for a terminal."""
    total = sum(audit.tokens.values())
    rows = [
        ("dialect", audit.dialect),
        *(
            (side, f"{audit.samples[side]} samples, {count} tokens ({_percent(count, total)})")
            for side, count in audit.tokens.items()
        ),
        *((f"  {name}", f"{count} tokens ({_percent(count, total)})") for name, count in audit.classes.items()),
        ("inside calls", f"{audit.call_tokens} tokens"),
        ("offered", f"{audit.call_tokens_offered} call tokens, {audit.functions_offered} functions called"),
        ("functions", f"{len(audit.functions_called)} called, {len(audit.schemas)} shown"),
        ("categories", ", ".join(f"{name} {count}" for name, count in audit.categories.items())),
        ("dropped", _dropped(audit)),
        ("suites", ", ".join(audit.suites) + ": no overlap" if audit.suites else "none compared"),
        ("digest", audit.digest),
    ]
    if audit.ran_out:
        rows.insert(3, ("note", f"the {audit.ran_out} samples ran out before the budget was used"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def _dropped(audit: Audit) -> str:
    if not audit.dropped:
        return "none"
    named = ", ".join(f"{name} ({length})" for name, length in audit.dropped[:_SHOWN])
    more = f" and {len(audit.dropped) - _SHOWN} more" if len(audit.dropped) > _SHOWN else ""
    return (
        f"{len(audit.dropped)} samples longer than {audit.max_seq_length} tokens, "
        f"{audit.call_tokens_dropped} call tokens: {named}{more}"
    )


def _percent(part: int, total: int) -> str:
    return f"{100 * part / total:.0f} %" if total else "0 %"


def _called(samples: Sequence[Sample]) -> set[str]:
    return {
        call["function"]["name"]
        for sample in samples
        for message in sample.messages
        for call in message.get("tool_calls") or ()
    }


def _requests(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The users' words, without case and punctuation."""
    texts = [message["content"] for message in messages if message["role"] == "user"]
    bare = ["".join(letter for letter in str(text).lower() if letter.isalnum()) for text in texts]
    # a few letters, such as a bare "Thanks", are in every conversation
    return [words for words in bare if len(words) > 12]
