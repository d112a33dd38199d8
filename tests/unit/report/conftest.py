"""A report with everything in it: a baseline, an artifact that passes and one that was not measured for speed."""

from typing import Any

import pytest
from flipped_report import MACHINE

from lf_export.report import ArtifactReport, Report


def calls(exact: int) -> dict[str, Any]:
    return {
        "n": 160,
        "strict_exact": exact,
        "bfcl_like": exact + 4,
        "name_ok": 150,
        "by_category": {
            "single": {"n": 100, "strict_exact": exact - 40, "bfcl_like": exact - 38},
            "parallel": {"n": 60, "strict_exact": 40, "bfcl_like": 42},
        },
        "errors": {"wrong_value": 20, "malformed": 3},
        "by_slice": {
            "one of several": {"n": 100, "strict_exact": exact - 40, "bfcl_like": exact - 38},
            "2 to 4 functions": {"n": 160, "strict_exact": exact, "bfcl_like": exact + 4},
        },
        "arguments": {"expected": 400, "right": 380, "lower": 0.93, "upper": 0.97},
        "schema_valid": 152,
        "schema_errors": {"missing": 5},
    }


def latency(speed: float) -> dict[str, Any]:
    return {
        "prompts": 8,
        "prompt_tokens": 310.5,
        "ttft": {"p50": 1.2 / speed, "p90": 1.5 / speed, "p99": 1.9 / speed},
        "tpot": {"p50": 0.04 / speed, "p90": 0.05 / speed, "p99": 0.07 / speed},
        "prefill_tokens_per_second": 250 * speed,
        "decode_tokens_per_second": 25 * speed,
    }


def endpoint(name: str, verdict: str = "PASS", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "verdict": verdict,
        "n": 160,
        "lost": 1,
        "gained": 2,
        "baseline_rate": 0.8,
        "candidate_rate": 0.80625,
        "loss": -0.00625,
        "lower": -0.031,
        "upper": 0.017,
        "p_over_margin": 1.0,
        "mcnemar_p": 1.0,
        "reason": "the loss is under the margin: at most 1.7 pp, 5.0 pp accepted",
        **changes,
    }


def fidelity(kl: float) -> dict[str, Any]:
    return {
        "tokens": 2400,
        "kl_mean": kl,
        "kl_p50": kl / 10,
        "kl_p99": kl * 9,
        "kl_lower": kl * 0.9,
        "kl_upper": kl * 1.1,
        "top1_agreement": 0.994,
        "margin_mean": 6.1,
        "margin_p1": -0.2,
        "margin_ratio": 0.93,
        "margin_ratio_lower": 0.91,
        "margin_ratio_upper": 0.95,
    }


def artifact(name: str, **changes: Any) -> ArtifactReport:
    fields: dict[str, Any] = {
        "name": name,
        "path": f"runs/quickstart/{name}",
        "format": "gguf",
        "scheme": "Q8_0",
        "runtime": "llamacpp",
        "digest": "ab" * 32,
        "enforced": True,
        "calls": calls(129),
        "no_call": {
            "n": 80,
            "abstained": 74,
            "malformed": 2,
            "empty": 1,
            "called": 3,
            "bfcl_like": 77,
            "by_slice": {"no call": {"n": 80, "abstained": 74}, "1 function": {"n": 20, "abstained": 20}},
        },
        "fidelity": {"prose": fidelity(0.0004), "call": fidelity(0.0021)},
        "chat_perplexity": 12.5,
        "latency": latency(2.0),
        "load_seconds": 0.61,
        "peak_rss_bytes": 410_000_000,
        "disk_bytes": 145_000_000,
        "gate": {"verdict": "PASS", "endpoints": [endpoint("strict_call"), endpoint("abstention", n=80)]},
        "raw": {
            "items": [
                {
                    "suite": "calls",
                    "id": "c-1",
                    "category": "single",
                    "kind": "call",
                    "correct": False,
                    "name_ok": True,
                    "bfcl_like": True,
                    "errors": ["nested"],
                    "issues": [
                        {"kind": "nested", "function": "sendEmail", "path": "body.title", "cause": "wrong_value"}
                    ],
                }
            ],
            "ttft_seconds": [0.6],
        },
    }
    return ArtifactReport.model_validate(fields | changes)


@pytest.fixture
def report() -> Report:
    suite = {"path": "shipped:suites/calls.jsonl", "items": 160, "of_items": 320, "sha256": "cd" * 32}
    return Report.model_validate(
        {
            "name": "quickstart",
            "created": "2026-11-22T18:30:00+00:00",
            "verdict": "PASS",
            "gate": {"margin": 0.05},
            "suites": {"calls": suite, "no_call": suite | {"path": "shipped:suites/no-call.jsonl"}},
            "dialect": "chat-template",
            "threads": 2,
            "machine": MACHINE,
            "versions": {"lf-export": "0.1.0", "torch": "2.13.0"},
            "baseline": artifact(
                "merged",
                format="hf",
                scheme=None,
                runtime="torch",
                gate=None,
                fidelity={},
                calls=calls(128),
                chat_perplexity=12.0,
                latency=latency(1.0),
                disk_bytes=540_000_000,
                enforced=False,
            ),
            "artifacts": [
                artifact("q8_0"),
                artifact(
                    "gptq-4bit",
                    format="gptq",
                    scheme="W4A16 g64",
                    runtime="torch",
                    representative=False,
                    enforced=False,
                    calibration_digest="ef" * 32,
                    latency=latency(0.5),
                    gate={
                        "verdict": "INCONCLUSIVE",
                        "endpoints": [
                            endpoint("strict_call", "INCONCLUSIVE", items_needed=412, reason="the loss may be 6.1 pp"),
                            endpoint("abstention"),
                        ],
                    },
                    notes=["2 layers fell back to RTN"],
                ),
            ],
        }
    )
