"""Measure one artifact: its answers, its distributions on the reference answers, its speed, its size."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lf_export.checkpoint.gguf_parts import parts_of
from lf_export.errors import ExportError, StepError
from lf_export.functions.dialects import Dialect
from lf_export.metrics import fidelity
from lf_export.metrics.calls import JudgedAnswer, judge_item
from lf_export.metrics.fidelity_top import TopFidelity
from lf_export.metrics.kept import Kept, compare_kept, keep
from lf_export.metrics.latency import Latency
from lf_export.metrics.paired_latency import LatencyRatios
from lf_export.metrics.serving import Level
from lf_export.provenance import digest_of
from lf_export.report.card import CARD_NAME
from lf_export.runtimes.child import ChildSession
from lf_export.steps.arms import ArmFound, ask_arms, no_arms
from lf_export.steps.chat import chat_answers, chat_nll
from lf_export.steps.interleaved import Beside
from lf_export.steps.latency_grid import GridFound
from lf_export.steps.prompts import Group, Prompt
from lf_export.steps.recorded import Recorded, Said
from lf_export.steps.speed import time_batches, time_prompts
from lf_export.steps.workload import Advance, Workload


@dataclass
class Measured:
    """What was found out about one artifact.

    Attributes:
        answers: by item id.
        said: by item id, the answer as it was given.
        compared: by item id, in the order of the answer's tokens; empty for the baseline.
        reference_nll: the artifact's mean negative log-likelihood of reference tokens, nats, by item id.
        chat_nll: negative log-likelihood of each counted chat token, nats.
        chat_said: greedy answers to conversations, by item id.
        ratios: of its times to the baseline's where both were timed in turn.
        batches: its speed at stated prompt lengths and batch sizes, where that was asked for.
        peak_gpu_bytes: None where no GPU was used.
        problems: hard floors that broke, in words.
        shown: by item id, where a server showed its likeliest tokens only.
        serving: a server under load, a level for each concurrency.
        arms: by name, the answers of each arm.
        notes: what a reader must know of the figures.
    """

    runtime: str
    representative: bool = True
    load_seconds: float = float("nan")
    answers: dict[str, JudgedAnswer] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    compared: dict[str, fidelity.TokenFidelity] = field(default_factory=dict)
    chat_nll: list[float] = field(default_factory=list)
    chat_said: dict[str, Said] = field(default_factory=dict)
    latency: Latency | None = None
    ttft_seconds: list[float] = field(default_factory=list)
    tpot_seconds: list[float] = field(default_factory=list)
    ratios: LatencyRatios | None = None
    batches: GridFound | None = None
    peak_rss_bytes: int = 0
    peak_gpu_bytes: int | None = None
    cpu_seconds: float = float("nan")
    disk_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    shown: dict[str, TopFidelity] = field(default_factory=dict)
    serving: list[Level] = field(default_factory=list)
    arms: dict[str, ArmFound] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def recorded(self) -> Recorded:
        """What of it holds for other runs too."""
        return Recorded(
            self.said, self.chat_nll, self.peak_rss_bytes, self.cpu_seconds, self.chat_said, self.peak_gpu_bytes
        )


def measure(
    path: Path,
    runtime: str,
    workload: Workload,
    dialect: Dialect,
    *,
    threads: int,
    workdir: Path,
    baseline_logits: Path,
    is_baseline: bool,
    advance: Advance,
    beside: Beside | None = None,
    recorded: Recorded | None = None,
) -> Measured:
    """Ask the artifact at `path` everything in `workload`, in a child process.

    Of the baseline's logits on the reference answers the likely tokens are written to the folder `baseline_logits`,
    one file an item; every other artifact is compared with them. Where `recorded` says what an earlier run found out
    about the baseline, the files are there already and it is only timed. Where `beside` has room for the baseline,
    times are taken in turn with it. What breaks is a finding (`Measured.problems`); only a missing package, or a
    baseline that breaks, is an error.

    Raises:
        MissingError: the runtime's package is not installed.
        StepError: the baseline does not load or does not answer.
    """
    found = Measured(runtime, disk_bytes=disk_bytes(path))
    try:
        with ChildSession(runtime, path, threads, workdir) as session:
            found.representative = session.representative
            found.load_seconds = session.load_seconds
            if _same_tokens(session, workload, found):
                if recorded is None:
                    _answers(session, workload, dialect, found, advance)
                    _distributions(session, workload, found, baseline_logits, advance, is_baseline=is_baseline)
                    _chat(session, workload, found, advance)
                else:
                    _recalled(recorded, workload, dialect, found, session.eos_ids)
                    advance(workload.units - len(workload.timed) - workload.arm_units, "kept from an earlier run")
                speed = time_prompts(session, workload.timing, beside)
                advance(len(workload.timed), "speed")
                found.latency, found.ratios = speed.latency, speed.ratios
                found.ttft_seconds, found.tpot_seconds = speed.ttft_seconds, speed.tpot_seconds
                found.notes += speed.notes
            found.peak_gpu_bytes = session.peak_gpu_bytes()
            found.peak_rss_bytes, found.cpu_seconds = session.usage()
            if recorded is not None:
                found.peak_rss_bytes, found.cpu_seconds = recorded.peak_rss_bytes, recorded.cpu_seconds
                found.peak_gpu_bytes = recorded.peak_gpu_bytes
            # Last, so that whatever becomes of the arms changes nothing that is judged.
            _arms(session, workload, dialect, found, advance)
            if workload.grid is not None and not is_baseline and not found.problems:
                prompts = [prompt.ids for prompt in workload.prompts]
                found.batches = time_batches(session, prompts, workload.grid, beside)
    except StepError as error:
        found.problems.append(error.message)
    except ExportError as error:
        if is_baseline or error.status == 4:  # the machine lacks something: no finding about the artifact
            raise
        found.problems.append(error.message)
    if is_baseline and found.problems:
        raise StepError(f"the baseline cannot be measured: {'; '.join(found.problems)}")
    return found


def loops_more(baseline: Measured, found: Measured, judged: Collection[str]) -> str | None:
    """The problem, in words, of an artifact that repeats itself on 5 % of the judged items where the baseline ends."""
    answers = {name: answer for name, answer in found.answers.items() if name in judged}
    new = [name for name, answer in answers.items() if answer.loops and not baseline.answers[name].loops]
    if not new or len(new) < len(answers) / 20:
        return None
    return f"{len(new)} of {len(answers)} answers repeat themselves up to the token limit, unlike the baseline's"


def disk_bytes(path: Path) -> int:
    """The bytes of a file with its parts, or of all files in a folder; an importance matrix does not count.

    Nor does the card: a bench writes its results into it, and the next one would find another size.
    """
    if path.is_file():
        return sum(part.stat().st_size for part in parts_of(path) if part.is_file())
    return sum(
        (Path(folder) / name).stat().st_size
        for folder, _, names in os.walk(path)
        for name in names
        if name not in {"imatrix.gguf", CARD_NAME}
    )


def _same_tokens(session: ChildSession, workload: Workload, found: Measured) -> bool:
    """Whether the artifact's own tokenizer gives the baseline's ids on every item."""
    prompts = workload.prompts
    for prompt, ids in zip(prompts, session.encode([prompt.text for prompt in prompts]), strict=True):
        if tuple(ids) != prompt.ids:
            found.problems.append(f"token ids differ from the baseline's tokenizer, first at item {prompt.item.id}")
            return False
    return True


def _answers(session: ChildSession, workload: Workload, dialect: Dialect, found: Measured, advance: Advance) -> None:
    asked = [(group.prefix, group.branches) for group in workload.groups]
    for number, answered in session.generate_groups(asked, workload.max_new_tokens):
        for prompt, generation in zip(workload.groups[number].prompts, answered, strict=True):
            _judge(found, prompt, (generation.ids, generation.text), dialect, session.eos_ids)
            advance(1, prompt.item.id)


def _judge(found: Measured, prompt: Prompt, said: Said, dialect: Dialect, ends: frozenset[int]) -> None:
    ids, text = found.said[prompt.item.id] = said
    found.answers[prompt.item.id] = judge_item(dialect.parse(text), prompt.item, ids, ends)


def _recalled(recorded: Recorded, workload: Workload, dialect: Dialect, found: Measured, ends: frozenset[int]) -> None:
    for group in workload.groups:
        for prompt in group.prompts:
            _judge(found, prompt, recorded.answers[prompt.item.id], dialect, ends)
    found.chat_nll, found.chat_said = list(recorded.chat_nll), dict(recorded.chat_answers)
    found.notes.append(
        "its answers, distributions, peak memory and CPU seconds are kept from an earlier run with the same files, "
        "items, options, versions and processor; its times were taken in this one"
    )


def _distributions(
    session: ChildSession,
    workload: Workload,
    found: Measured,
    baseline_logits: Path,
    advance: Advance,
    *,
    is_baseline: bool,
) -> None:
    for group in workload.groups:
        if not _compare(session, group, workload, found, baseline_logits, advance, is_baseline=is_baseline):
            return


def _compare(
    session: ChildSession,
    group: Group,
    workload: Workload,
    found: Measured,
    baseline_logits: Path,
    advance: Advance,
    *,
    is_baseline: bool,
) -> bool:
    """Compare the chosen items of a group with the baseline; whether the logits are finite."""
    prompts = [prompt for prompt in group.prompts if prompt.item.id in workload.compared]
    if not prompts:
        return True
    skip = len(group.prefix)
    rows = session.score(
        group.prefix,
        [prompt.full_ids[skip:] for prompt in prompts],
        [len(prompt.ids) - skip for prompt in prompts],
    )
    for prompt, logits in zip(prompts, rows, strict=True):
        if not np.isfinite(logits).all():
            found.problems.append(f"logits are not finite at item {prompt.item.id}")
            return False
        file = baseline_logits / workload_key(prompt)
        if is_baseline:
            keep(logits).save(file)
        else:
            found.compared[prompt.item.id] = compare_kept(Kept.load(file), logits, prompt.answer_ids)
        advance(1, prompt.item.id)
    return True


def workload_key(prompt: Prompt) -> str:
    """A file name for an item: ids are the user's own text and may hold anything."""
    return digest_of(prompt.item.id)


def _chat(session: ChildSession, workload: Workload, found: Measured, advance: Advance) -> None:
    found.chat_nll = chat_nll(session, workload, advance)
    if not np.isfinite(found.chat_nll).all():
        found.problems.append("logits are not finite on the chat suite")
    found.chat_said = chat_answers(session, workload, advance)


def _arms(session: ChildSession, workload: Workload, dialect: Dialect, found: Measured, advance: Advance) -> None:
    if found.problems:
        found.arms = no_arms(workload.arms, "the raw answers are not whole")
        return
    found.arms = ask_arms(
        workload.arms,
        session,
        workload.groups,
        found.answers,
        dialect,
        workload.routing,
        max_new_tokens=workload.max_new_tokens,
        advance=advance,
    )
