"""The page: what is asked on top, the answers below it, side by side."""

from collections.abc import Iterator
from html import escape
from typing import Any

from lf_export.errors import ExportError, MissingError
from lf_export.trial.artifact import Artifact
from lf_export.trial.examples import Example, shipped_examples
from lf_export.trial.markup import answer_html, problem_html, reference_html
from lf_export.trial.trial import Shown, Trial

_LONGEST = 1024
_RAW, _CONSTRAINED = "Raw", "Grammar-constrained"
_WAITING = 16  # requests that wait; more are told that the page is busy

CSS = """
.gradio-container { max-width: 80rem !important; margin: 0 auto; --quiet: #57606a; }
.dark .gradio-container, .dark.gradio-container { --quiet: #a8b1bb; }
#title, #problem, #reference, [id^=answer-] { padding: 0 !important; }
#title h1 { font-size: 1.5rem; font-weight: 600; }
.mono textarea { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.85rem; }
.answer { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 1rem; overflow-wrap: anywhere;
  background: var(--background-fill-primary); color: var(--body-text-color); }
.answer h2 { font-size: 1.15rem; font-weight: 600; margin: 0; }
.answer h3 { font-size: 1rem; font-weight: 600; margin: 1rem 0 0.25rem; }
.answer .note { color: var(--quiet); font-size: 0.85rem; margin: 0 0 0.5rem; }
.answer .verdict { font-weight: 600; margin: 0.5rem 0; }
.answer .good { color: #116329; } .answer .bad, .answer .problem, .refused { color: #a40e26; }
.dark .answer .good { color: #7ee787; }
.dark .answer .bad, .dark .answer .problem, .dark .refused { color: #ffa198; }
.answer pre.text, details pre.text { white-space: pre-wrap; max-height: 24rem; overflow: auto; margin: 0.5rem 0;
  padding: 0.75rem; border-radius: 6px; background: var(--background-fill-secondary); font-size: 0.85rem;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.answer table { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
.answer th, .answer td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0;
  border-bottom: 1px solid var(--border-color-primary); font-weight: 400; }
.answer thead th { color: var(--quiet); }
.answer dl { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; margin: 1rem 0 0; }
.answer dt { color: var(--quiet); font-size: 0.8rem; } .answer dd { margin: 0; font-weight: 600; }
.refused ul { margin: 0.25rem 0 0 1.25rem; list-style: disc; }
"""


def gradio() -> Any:
    """The module, its telemetry off.

    Raises:
        MissingError: it is not installed.
    """
    import os  # noqa: PLC0415 - set before the import reads it

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as module  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingError("the package gradio is not installed", "pip install 'lf-export[try]'") from error
    return module


def theme() -> Any:
    """System fonts alone: nothing is fetched."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gradio().themes.Base(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"])


def page(trial: Trial) -> Any:
    """The page of a trial as Gradio `Blocks`.

    Raises:
        MissingError: Gradio is not installed.
    """
    gr = gradio()
    examples = {each.label: each for each in shipped_examples()}
    notes = [_note(artifact) for artifact in trial.artifacts]
    first = next(iter(examples.values()))

    def ask(functions: str, message: str, most: float, way: str, request: Any) -> Iterator[tuple[str, ...]]:
        shown: tuple[Shown, ...] = tuple(Shown(artifact.name) for artifact in trial.artifacts)
        try:
            longest = min(max(int(most or 0), 1), _LONGEST)
            for shown in trial.ask(
                functions, message, longest, str(request.session_hash), constrained=way == _CONSTRAINED
            ):
                yield "", *_answers(shown, notes)
        except ExportError as error:
            yield problem_html("\n".join(filter(None, [error.message, error.hint]))), *_answers(shown, notes)

    def choose(label: str) -> tuple[str, str, str]:
        example: Example = examples[label]
        return example.functions, example.message, reference_html(example.reference)

    def stop(request: Any) -> None:
        trial.stop(str(request.session_hash))

    # Gradio gives a request to arguments of that type; the name is not known before it is imported.
    for function in (ask, stop):
        function.__annotations__["request"] = gr.Request
    with gr.Blocks(title=f"Try {trial.artifacts[0].name}", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(_heading(trial), elem_id="title")
        with gr.Row():
            with gr.Column(min_width=320):
                chosen = gr.Dropdown(list(examples), value=first.label, label="Example", elem_id="example")
                message = gr.Textbox(first.message, label="Message", lines=4, elem_id="message")
                most = gr.Slider(8, _LONGEST, 192, step=8, label="Longest answer, in tokens", elem_id="longest")
                way = gr.Radio(
                    [_RAW, _CONSTRAINED],
                    value=_RAW,
                    label="Calls",
                    elem_id="way",
                )
                with gr.Row():
                    send = gr.Button("Send", variant="primary", elem_id="send")
                    halt = gr.Button("Stop", elem_id="stop")
                problem = gr.HTML("", elem_id="problem")
                reference = gr.HTML(reference_html(first.reference), elem_id="reference")
            with gr.Column(min_width=320):
                functions = gr.Textbox(
                    first.functions,
                    label="Functions, as JSON",
                    lines=16,
                    max_lines=24,
                    elem_id="functions",
                    elem_classes="mono",
                )
        with gr.Row():
            answers = []
            for place, artifact in enumerate(trial.artifacts):
                with gr.Column(min_width=320):
                    start = answer_html(Shown(artifact.name), notes[place])
                    answers.append(gr.HTML(start, elem_id=f"answer-{place}"))
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        chosen.input(choose, chosen, [functions, message, reference], **hidden)
        send.click(
            ask,
            [functions, message, most, way],
            [problem, *answers],
            concurrency_limit=1,
            concurrency_id="ask",
            **hidden,
        )
        halt.click(stop, None, None, queue=False, **hidden)
        blocks.unload(stop)
    blocks.queue(max_size=_WAITING)
    return blocks


def _answers(shown: tuple[Shown, ...], notes: list[str]) -> list[str]:
    return [answer_html(each, note) for each, note in zip(shown, notes, strict=True)]


def _heading(trial: Trial) -> str:
    names = " and ".join(escape(artifact.name) for artifact in trial.artifacts)
    order = "One is asked after the other, so that their times compare. " if len(trial.artifacts) > 1 else ""
    return f"<h1>Try {names}</h1><p>{order}Answers are greedy; the dialect is {escape(trial.dialect.name)}.</p>"


def _note(artifact: Artifact) -> str:
    slow = "" if artifact.representative else "; dequantized, so its times say nothing about a deployment"
    return f"in {artifact.runtime}, loaded in {artifact.load_seconds:.1f} s{slow}"
