"""The child process that holds one artifact: requests as JSON lines on standard input, answers as JSON lines.

Logits do not fit a line: they are written as raw float32 to the file that the request names. What a library prints
goes to standard error, so that it cannot mix with the answers.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from lf_export.errors import ExportError
from lf_export.orphan import end_with
from lf_export.runtimes import Generation, Session, runtime
from lf_export.runtimes.guides import Guide


def main() -> None:
    """Load `argv[2]` in runtime `argv[1]` with `argv[3]` threads, and serve until standard input or the parent ends."""
    end_with(int(sys.argv[4]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        session = runtime(sys.argv[1]).open_session(Path(sys.argv[2]), int(sys.argv[3]))
    except ExportError as error:
        _send(answers, {"error": error.message, "hint": error.hint, "status": error.status})
        return
    _send(
        answers,
        {
            "name": session.name,
            "representative": session.representative,
            "load_seconds": session.load_seconds,
            "eos_ids": sorted(session.eos_ids),
            "vocab_size": session.vocab_size,
            "guided": session.guided,
        },
    )
    written: Iterator[Generation] = iter(())  # an answer that is asked for token by token
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if request["do"] == "stream":
                guide = Guide.from_json(request["guide"]) if request["guide"] else None
                written = session.stream(request["prompt"], request["max_new_tokens"], guide)
            if request["do"] in {"stream", "more"}:
                generation = next(written, None)
                _send(answers, {"generations": [] if generation is None else [asdict(generation)]})
                continue
            written = iter(())
            for answer in _answers(session, request):
                _send(answers, answer)
        except ExportError as error:
            _send(answers, {"error": error.message, "hint": error.hint, "status": error.status})
    session.close()


def _answers(session: Session, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines that answer a request: one, but for `generate` one for each group and one at the end."""
    match request["do"]:
        case "encode":
            yield {"ids": [session.encode(text) for text in request["texts"]]}
        case "score":
            rows = session.score(request["prefix"], request["branches"], request["starts"])
            with Path(request["file"]).open("wb") as file:
                file.writelines(np.ascontiguousarray(row, dtype=np.float32).data for row in rows)
            yield {"rows": [len(row) for row in rows]}
        case "generate":
            known = list(map(Guide.from_json, request["guides"]))
            chosen = request["guided"]
            guides = chosen and [[None if at is None else known[at] for at in group] for group in chosen]
            for number, found in session.generate_groups(request["groups"], request["max_new_tokens"], guides):
                yield {"group": number, "generations": [asdict(generation) for generation in found]}
            yield {"end": True}
        case "generate_one":
            yield {"generations": [asdict(session.generate_one(request["prompt"], request["max_new_tokens"]))]}
        case "time_batch":
            yield {"times": session.time_batch(request["prompts"], request["new_tokens"])}
        case "peak_gpu":
            yield {"bytes": session.peak_gpu_bytes()}
        case "usage":
            # Linux counts ru_maxrss in KiB.
            usage = resource.getrusage(resource.RUSAGE_SELF)
            yield {"peak_rss_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        case other:
            raise ExportError(f"the worker knows no request {other!r}")


def _send(answers: IO[str], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
