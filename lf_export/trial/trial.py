"""A trial: the same request to one artifact, then to the other, token by token."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lf_export.errors import ExportError, InputError, MissingError
from lf_export.functions.dialects import Dialect, text_of
from lf_export.functions.grammars import call_grammar
from lf_export.functions.spec import FunctionSpec
from lf_export.runtimes.base import Generation
from lf_export.runtimes.guides import Guide
from lf_export.trial.artifact import Artifact
from lf_export.trial.asked import read_functions, read_message
from lf_export.trial.judged import Judged, judge

State = Literal["waiting", "reading", "writing", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Shown:
    """What is known of one artifact's answer.

    Attributes:
        name: the artifact's.
        state: `reading` until the first token, `writing` until the last.
        text: the answer so far, without its end token.
        tokens: how many were written.
        ended: whether the answer came to its own end.
        ttft: seconds to the first token.
        tpot: mean seconds for each token after it; None for fewer than two tokens.
        judged: what the whole answer is worth.
        problem: why there is none, in words.
        engine: what held a call to the functions' grammar; "" for a raw answer.
    """

    name: str
    state: State = "waiting"
    text: str = ""
    tokens: int = 0
    ended: bool = False
    ttft: float | None = None
    tpot: float | None = None
    judged: Judged | None = None
    problem: str = ""
    engine: str = ""


class Trial:
    """Artifacts that are asked one after the other, so that each has the machine to itself and times compare.

    One request at a time: a new one ends the one before it.
    """

    def __init__(self, artifacts: Sequence[Artifact], dialect: Dialect) -> None:
        self.artifacts, self.dialect = tuple(artifacts), dialect
        self._guard = threading.Lock()  # held for a token at a time: an answer that nobody reads blocks nobody
        self._turn = 0
        self._who = ""
        self._stopped = 0  # the turn that was

    def ask(
        self, functions: str, message: str, max_new_tokens: int, who: str = "", *, constrained: bool = False
    ) -> Iterator[tuple[Shown, ...]]:
        """What is known of each artifact's answer, again and again until all have ended.

        Args:
            functions: as JSON, "" for none.
            message: the user's.
            max_new_tokens: the longest answer.
            who: whose request it is, for `stop`.
            constrained: hold a call to the grammar of the functions, from the token that opens it. An artifact whose
                runtime cannot says so and gives no answer.

        Raises:
            InputError: functions or a message that cannot be asked; nothing was asked then.
        """
        specs = read_functions(functions)
        said = read_message(message)
        pieces = self.dialect.render([{"role": "user", "content": said}], specs, generate=True)
        prompt = self.dialect.bos + text_of(pieces)
        guide = Guide(call_grammar(specs, self.dialect.form)) if constrained and specs else None
        with self._guard:
            self._turn += 1
            turn, self._who = self._turn, who
        shown = [Shown(artifact.name) for artifact in self.artifacts]
        for place, artifact in enumerate(self.artifacts):
            for each in self._answer(artifact, prompt, specs, guide, max_new_tokens, turn):
                shown[place] = each
                yield tuple(shown)

    def stop(self, who: str = "") -> None:
        """End the request of `who`, where it is under way, at its next token."""
        if who == self._who:
            self._stopped = self._turn

    def close(self) -> None:
        """End every child process."""
        self._turn += 1
        # A long prompt may hold the guard: the child is ended all the same.
        held = self._guard.acquire(timeout=1.0)
        try:
            for artifact in self.artifacts:
                artifact.close()
        finally:
            if held:
                self._guard.release()

    def _answer(
        self,
        artifact: Artifact,
        prompt: str,
        specs: Sequence[FunctionSpec],
        guide: Guide | None,
        most: int,
        turn: int,
    ) -> Iterator[Shown]:
        shown = Shown(artifact.name, "reading", engine=artifact.guided if guide else "")
        if self._over(turn):
            yield replace(shown, state="stopped")
            return
        yield shown
        try:
            stream = artifact.stream(prompt, most, guide)
            generation: Generation | None = None
            while not self._over(turn):
                with self._guard:
                    following = next(stream, None) if self._turn == turn else None
                if following is None:
                    break
                generation = following
                shown = _with(shown, generation)
                yield shown
            if generation is None or self._over(turn):
                yield replace(shown, state="stopped")
                return
            judged = judge(generation.text, self.dialect, specs)
            yield replace(shown, state="done", ended=artifact.ended(generation), judged=judged)
        except ExportError as error:
            yield replace(shown, state="failed", problem=_plain(error))

    def _over(self, turn: int) -> bool:
        return turn == self._stopped or turn != self._turn


def _with(shown: Shown, generation: Generation) -> Shown:
    first, *rest = generation.times
    tpot = (rest[-1] - first) / len(rest) if rest else None
    return replace(shown, state="writing", text=generation.text, tokens=len(generation.ids), ttft=first, tpot=tpot)


def _plain(error: ExportError) -> str:
    hint = error.hint if isinstance(error, InputError | MissingError) else "the next request loads the artifact again"
    return f"{error.message} ({hint})" if hint else error.message
