"""A report with flips of every sort, and whatever text is asked for in every place that a model or a user writes."""

from typing import Any

from lf_export.report import Report

HOSTILE = (
    '</script><script>window.broken = 1</script><!-- <img src=x onerror="window.broken = 2"> </style>'
    '</pre></details>{{ 7 * 7 }} " \' & ]]> <svg onload="window.broken = 3">'
)
PLACE = "/home/somebody/secret/runs"
MACHINE = {
    "system": "Linux",
    "processor": "A Processor",
    "instruction_sets": ["fma", "avx2"],
    "architecture": "x86_64",
    "cores": 2,
    "memory_bytes": 16_000_000_000,
}
KINDS = ("wrong_value", "missing_argument", "malformed", "unwanted_call")


def flipped_report(
    items: int = 24, text: str = "", artifacts: tuple[str, ...] = ("q8_0", "gptq-4bit", "q2_k")
) -> Report:
    """A baseline that is right on every even item, and artifacts that flip some.

    Args:
        items: how many; every sixth needs no call.
        text: stands in names of categories, prompts, functions, answers, notes and problems.
        artifacts: the first passes, the second is advisory and inconclusive, the others fail.
    """
    base = [_item(at, at % 2 == 0, text) for at in range(items)]
    parts = []
    for number, name in enumerate(artifacts):
        changed = [_item(at, (at % 2 == 0) != (at % (number + 3) == 1), text, name) for at in range(items)]
        verdict = ("PASS", "INCONCLUSIVE", "FAIL")[min(number, 2)]
        parts.append(
            _artifact(name, changed, 0.4 / (number + 1), kl=0.0004 * 9**number)
            | {
                "enforced": number != 1,
                "representative": number != 1,
                "gate": _gate(verdict, base, changed, text),
                "layer_errors": _layers() if number else None,
                "notes": [f"note {text}"],
                "chat_drift": {
                    "answers": 4,
                    "identical": 3,
                    "identical_lower": 0.301,
                    "identical_upper": 0.954,
                    "agreed": 0.9,
                    "agreed_lower": 0.7,
                    "agreed_upper": 1.0,
                    "first_difference": 5.0,
                    "parted": [{"item": f"chat {text}", "baseline": f"Fine. {text}", "artifact": f"Good. {text}"}],
                },
                "arms": _arms(number, text),
                **_beside(number, text),
            }
        )
    suite = {"path": "shipped:suites/calls.jsonl", "items": items, "of_items": items, "sha256": "cd" * 32}
    return Report.model_validate(
        {
            "name": f"release {text}",
            "created": "2026-11-22T18:30:00+00:00",
            "verdict": "FAIL" if len(artifacts) > 2 else "PASS",
            "gate": {"margin": 0.05},
            "suites": {"calls": suite, "no_call": suite, "chat": suite},
            "dialect": "chat-template",
            "threads": 2,
            "machine": MACHINE,
            "versions": {"lf-export": "0.1.0", "torch": "2.13.0"},
            "baseline": _artifact("merged", base, 1.0, kl=None)
            | {"format": "hf", "runtime": "torch", "arms": _arms(-1, text)},
            "artifacts": parts,
            "texts": _texts(items, text),
        }
    )


def _arms(number: int, text: str) -> list[dict[str, Any]]:
    """Both arms measured, and for the third artifact and those after it none available."""
    if number > 1:
        return [{"arm": name, "missing": f"no engine {text}"} for name in ("constrained", "routed")]
    change = {
        "endpoint": "strict_call",
        "n": 20,
        "right": 12,
        "gained": 3,
        "lost": 1,
        "change": 0.1,
        "lower": -0.05,
        "upper": 0.25,
        "loss": 0.05,
        "loss_lower": -0.02,
        "loss_upper": 0.12,
        "raw_loss": 0.15,
        "raw_lost": 4,
        "hidden": 2,
    }
    silent = {"endpoint": "abstention", "n": 4, "right": 3, "gained": 0, "lost": 0, "change": 0, "lower": 0, "upper": 0}
    arm = {
        "engine": "llama.cpp",
        "asked": 14,
        "changes": [change, silent],
        "unknown_functions": 0,
        "malformed": 1,
        "raw_unknown_functions": 2,
        "raw_malformed": 5,
        "items": [{"suite": "calls", "id": "item-0001", "kind": "call", "correct": True, "answer": text}],
    }
    router = {
        "trained": 128,
        "held_out": 64,
        "held_out_right": 60,
        "held_out_lower": 0.85,
        "held_out_upper": 0.975,
        "items": 24,
        "items_right": 23,
        "items_lower": 0.8,
        "items_upper": 0.99,
    }
    if number < 0:  # the baseline itself loses nothing to it
        for each in ("loss", "loss_lower", "loss_upper", "raw_loss", "raw_lost", "hidden"):
            del change[each]
    return [{"arm": "constrained", **arm}, {"arm": "routed", **arm, "router": router}]


def _suite(at: int) -> str:
    return "no_call" if at % 6 == 5 else "calls"


def _item(at: int, correct: bool, text: str, name: str = "") -> dict[str, Any]:
    call = f'{{"function_call":{{"name":"book","arguments":{{"seat":{at if correct else -at - 1}}}}}}}'
    return {
        "suite": _suite(at),
        "id": f"item-{at:04}",
        "category": ("single", "nested")[at % 2] + (f" {text}" if at == 0 else ""),
        "kind": "call",
        "correct": correct,
        "name_ok": True,
        "bfcl_like": correct,
        "errors": [] if correct else [KINDS[at % len(KINDS)]],
        "answer": f"{call} {name} {text}" if text else call,
    }


def _artifact(name: str, items: list[dict[str, Any]], size: float, kl: float | None) -> dict[str, Any]:
    calls = [item for item in items if item["suite"] == "calls"]
    right = sum(item["correct"] for item in calls)
    without = len(items) - len(calls)
    times = {"p50": 0.04 * size, "p90": 0.05 * size, "p99": 0.07 * size}
    return {
        "name": name,
        "path": f"{PLACE}/{name}",
        "format": "gguf",
        "scheme": "Q8_0",
        "runtime": "llamacpp",
        "digest": "ab" * 32,
        "calls": {
            "n": len(calls),
            "strict_exact": right,
            "bfcl_like": right,
            "name_ok": len(calls),
            "by_slice": {"2-4 functions": {"n": len(calls), "strict_exact": right, "bfcl_like": right}},
        },
        "variants": {"masked": {"calls": {"n": 8, "strict_exact": 3, "bfcl_like": 4, "name_ok": 6}}},
        "no_call": {"n": without, "abstained": without, "malformed": 0, "empty": 0, "called": 0},
        "fidelity": {}
        if kl is None
        else {
            "call": {
                "tokens": 900,
                "kl_mean": kl,
                "kl_lower": kl / 2,
                "kl_upper": kl * 2,
                "margin_ratio": 0.9731,
                "margin_ratio_lower": 0.9412,
                "margin_ratio_upper": 1.0164,
            }
        },
        "chat_perplexity": 12.5,
        "latency": {
            "prompts": 8,
            "prompt_tokens": 310.5,
            "ttft": {key: 20 * value for key, value in times.items()},
            "tpot": times,
            "prefill_tokens_per_second": 250 / size,
            "decode_tokens_per_second": 25 / size,
        },
        "load_seconds": 0.61,
        "peak_rss_bytes": 410_000_000,
        "disk_bytes": int(540_000_000 * size),
        "raw": {
            "items": items,
            "ttft_seconds": [0.8 * size, 0.9 * size],
            "tpot_seconds": [0.04 * size, 0.05 * size, 0.06 * size],
        },
    }


def _beside(number: int, text: str) -> dict[str, Any]:
    """Ratios and batches; the later artifacts are slower."""

    def ratio(estimate: float) -> dict[str, float]:
        return {"estimate": estimate, "lower": 0.9 * estimate, "upper": 1.12 * estimate}

    slow = 0.7 + 0.4 * number
    times = {"p50": 0.04 * slow, "p90": 0.05 * slow, "p99": 0.07 * slow}
    speed = {"ttft": times, "tpot": times, "tokens_per_second": 80 / slow, "joules_per_token": 0.4 * slow}
    cells: list[dict[str, Any]] = [
        {"prompt_length": length, "batch_size": size, "artifact": speed, "ttft": ratio(slow), "tpot": ratio(slow + 0.1)}
        for length in (128, 512)
        for size in (1, 4)
    ]
    cells.append({"prompt_length": 4096, "batch_size": 4, "why": f"4096 tokens do not fit {text}"})
    found = {"ttft": ratio(slow), "tpot": ratio(slow + 0.2), "end_to_end": ratio(slow + 0.1)}
    return {
        "latency_ratios": {"prompts": 8, "rounds": 2, **found},
        "latency_grid": {"new_tokens": 32, "warmup": 1, "repeats": 5, "energy": "measured", "cells": cells},
        "slower": ["slower than the baseline: each further token takes 1.50 times as long"] if number > 1 else [],
    }


def _gate(verdict: str, base: list[dict[str, Any]], after: list[dict[str, Any]], text: str) -> dict[str, Any]:
    lost = sum(one["correct"] and not other["correct"] for one, other in zip(base, after, strict=True))
    gained = sum(other["correct"] and not one["correct"] for one, other in zip(base, after, strict=True))
    endpoint = {
        "name": "strict_call",
        "verdict": verdict,
        "n": len(base),
        "lost": lost,
        "gained": gained,
        "baseline_rate": 0.5,
        "candidate_rate": 0.5,
        "loss": (lost - gained) / len(base),
        "lower": -0.03,
        "upper": 0.07,
        "p_over_margin": 1.0,
        "mcnemar_p": 1.0,
        "items_needed": 412 if verdict == "INCONCLUSIVE" else None,
        "reason": f"the loss may be 7.0 pp {text}",
    }
    problems = [f"{PLACE}/q2_k/model.gguf: does not load {text}"] if verdict == "FAIL" else []
    return {"verdict": verdict, "endpoints": [endpoint], "problems": problems}


def _layers() -> dict[str, Any]:
    def layer(at: int | None, worst: str) -> dict[str, Any]:
        error = 1e-3 * ((at or 0) + 1)
        return {
            "layer": at,
            "linears": 7,
            "error": error,
            "plain_error": 5e-3,
            "worst": worst,
            "worst_error": 2 * error,
        }

    return {"plain": "rtn", "layers": [*(layer(at, f"layers.{at}.up_proj") for at in range(4)), layer(None, "lm_head")]}


def _texts(items: int, text: str) -> dict[str, Any]:
    return {
        "functions": {"f": f'{{"name": "book", "description": "Book a seat. {text}"}}'},
        "items": [
            {
                "suite": _suite(at),
                "id": f"item-{at:04}",
                "functions": ["f"],
                "prompt": [{"role": "user", "text": f"Please book seat {at}. {text}"}],
                "expected_calls": [{"name": "book", "arguments": {"seat": at, "note": text}}],
            }
            for at in range(items)
        ],
    }
