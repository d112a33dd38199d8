"""An answer as HTML: everything that a model or a user wrote is escaped."""

from html import escape
from itertools import zip_longest

from lf_export.trial.judged import Argument, Judged, JudgedCall
from lf_export.trial.trial import Shown

_STATES = {
    "waiting": "Waiting for its turn",
    "reading": "Reading the prompt …",
    "writing": "Writing …",
    "stopped": "Stopped",
    "failed": "No answer",
}
_KINDS = {
    "prose": ("plain", "An answer in words, no call"),
    "malformed": ("bad", "An attempt at a call that cannot be read"),
    "empty": ("bad", "An empty answer"),
}


def answer_html(shown: Shown, note: str = "") -> str:
    """One artifact's answer: its verdict, its text, its calls, its times; `note` stands below its name."""
    kind, words = _verdict(shown)
    held = f"; calls are held to the functions' grammar by {shown.engine}" if shown.engine else ""
    busy = ' aria-busy="true"' if shown.state in {"reading", "writing"} else ""
    parts = [
        f'<section class="answer" aria-label="Answer of {escape(shown.name)}"{busy}>',
        f'<h2>{escape(shown.name)}</h2><p class="note">{escape(note + held)}</p>',
        f'<p class="verdict {kind}" role="status">{escape(words)}</p>',
    ]
    if shown.problem:
        parts.append(f'<p class="problem">{escape(shown.problem)}</p>')
    if shown.text:
        parts.append(f'<pre class="text" tabindex="0" aria-label="The answer\'s text">{escape(shown.text)}</pre>')
    if shown.judged is not None:
        parts += [_call_html(call, number) for number, call in enumerate(shown.judged.calls, 1)]
    parts += [_times_html(shown), "</section>"]
    return "".join(parts)


def _verdict(shown: Shown) -> tuple[str, str]:
    judged = shown.judged
    if judged is None:
        return ("bad" if shown.state == "failed" else "plain"), _STATES.get(shown.state, "")
    kind, words = _judged_words(judged)
    if not shown.ended:
        words += f"; cut after {shown.tokens} tokens"
    return kind, words


def _judged_words(judged: Judged) -> tuple[str, str]:
    if judged.kind != "call":
        return _KINDS[judged.kind]
    wrong = sum(not call.valid for call in judged.calls)
    if len(judged.calls) == 1:
        return ("bad", "A call that its function would refuse") if wrong else ("good", "A valid call")
    if wrong:
        return "bad", f"{wrong} of {len(judged.calls)} calls would be refused"
    return "good", f"{len(judged.calls)} valid calls"


def _call_html(call: JudgedCall, number: int) -> str:
    mark = "✓" if call.valid else "✕"
    rows = "".join(_argument_html(argument) for argument in call.arguments)
    problem = f'<p class="problem">{escape(call.problem)}</p>' if call.problem else ""
    head = "<thead><tr><th scope=col>Argument</th><th scope=col>Value</th><th scope=col>Check</th></tr></thead>"
    table = f"<table>{head}<tbody>{rows}</tbody></table>" if rows else "<p>Without arguments.</p>"
    return f"<h3>Call {number}: <code>{escape(call.name)}</code> {mark}</h3>{problem}{table}"


def _argument_html(argument: Argument) -> str:
    value = "-" if argument.value is None else f"<code>{escape(argument.value)}</code>"
    check = "✓ fits" if not argument.problems else f"✕ {escape('; '.join(argument.problems))}"
    kind = "bad" if argument.problems else "good"
    return f'<tr><th scope=row>{escape(argument.name)}</th><td>{value}</td><td class="{kind}">{check}</td></tr>'


def _times_html(shown: Shown) -> str:
    names = ("Time to first token", "Time per token", "Tokens per second", "Tokens")
    values = (
        "" if shown.ttft is None else f"{shown.ttft * 1000:,.0f} ms",
        "" if shown.tpot is None else f"{shown.tpot * 1000:,.1f} ms",
        "" if not shown.tpot else f"{1 / shown.tpot:,.1f}",
        str(shown.tokens or ""),
    )
    pairs = zip_longest(names, values, fillvalue="")
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value or '-'}</dd></div>" for name, value in pairs) + "</dl>"


def problem_html(message: str) -> str:
    """What is wrong with a request, a line each."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in message.splitlines())
    return f'<div class="refused" role="alert"><strong>Not asked.</strong><ul>{lines}</ul></div>' if lines else ""


def reference_html(text: str) -> str:
    """The reference answer of the example that was chosen, folded."""
    if not text:
        return ""
    return f"<details><summary>The example's reference answer</summary><pre class=text>{escape(text)}</pre></details>"
