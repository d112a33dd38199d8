"""The report of a bench run: one value that holds what was measured; JSON, Markdown and the terminal are views of it.

Counts and raw values are kept, rates and ratios are left to the views. `None` means "not measured"; a float that is not
finite becomes `None`, so that a report is always plain JSON. Times are in seconds, sizes in bytes, losses are shares
(0.03 is 3 percentage points), KL is in nats.
"""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, Field, model_validator

from lf_export.functions.answers import Kind
from lf_export.report.arms import ArmResult
from lf_export.report.batches import LatencyGrid
from lf_export.report.chat import ChatDrift
from lf_export.report.evidence import LayerErrors, Texts
from lf_export.report.latency import LatencyRatios
from lf_export.report.parts import Count, Measured, Percentiles, Share
from lf_export.report.parts import Part as _Part
from lf_export.report.serving import ServingLevel, ShownFidelity

_P = TypeVar("_P", bound=BaseModel)

VerdictName = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Expected = Literal["no flips", "PASS", "FAIL"]


class Machine(_Part):
    """What ran, as `lf_export.provenance.machine` says it."""

    system: str
    processor: str
    architecture: str
    instruction_sets: list[str] = Field([], description="Vector instructions that matrix products use, where known.")
    cores: Annotated[int, Field(ge=1, description="Cores that the process could use.")]
    memory_bytes: Count


class SuiteFacts(_Part):
    """Which items were judged."""

    path: str = Field(description="The suite: `shipped:FILE`, or the file's name.")
    items: Count = Field(description="Items that were judged.")
    of_items: Count = Field(description="Items in the whole suite.")
    sha256: str = Field(description="Digest of the suite's file.")


class Suites(_Part):
    """The suites of the run; None where one was left out."""

    calls: SuiteFacts | None = None
    no_call: SuiteFacts | None = None
    chat: SuiteFacts | None = None


class GateSettings(_Part):
    """What the verdict was asked."""

    margin: Annotated[float, Field(gt=0, lt=1, description="The largest loss that is accepted, as a share of items.")]
    alpha: Annotated[float, Field(gt=0, lt=0.5, description="One-sided error rate of the bounds.")] = 0.05
    baseline_floor: Share = Field(0.25, description="A baseline whose rate is below this share proves nothing.")
    margins: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="Another margin for an endpoint, by its name."
    )
    min_items: Count = Field(1, description="An endpoint with fewer items cannot pass.")
    limits: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="The largest ratio to the baseline that is accepted, of ttft, tpot, disk, memory, load.",
    )


class CategoryCounts(_Part):
    """One category or slice of call items."""

    n: Count
    strict_exact: Count
    bfcl_like: Count = Field(description="Items that are right by the rules of BFCL's AST checker.")

    @model_validator(mode="after")
    def _at_most_n(self) -> Self:
        return _bounded(self, self.n, "strict_exact", "bfcl_like")


class ArgumentAccuracy(_Part):
    """The arguments that expected calls need, over all items, and how many were given with a right value."""

    expected: Count
    right: Count
    lower: Measured = Field(
        None, description="Lower end of the 95 % cluster bootstrap interval of the share, by items."
    )
    upper: Measured = Field(None, description="Upper end of that interval.")

    @model_validator(mode="after")
    def _at_most_expected(self) -> Self:
        return _bounded(self, self.expected, "right", of="expected")


class CallMetrics(CategoryCounts):
    """Items whose reference answer is one call or several."""

    name_ok: Count = Field(description="Items whose calls name the right functions, whatever their arguments.")
    by_category: dict[str, CategoryCounts] = Field(default_factory=dict)
    by_slice: dict[str, CategoryCounts] = Field(
        default_factory=dict,
        description="By shape of the expected calls, by how many functions are shown, by turns; an item is in several.",
    )
    arguments: ArgumentAccuracy | None = None
    schema_valid: Count | None = Field(
        None, description="Items whose answer is calls that the functions' strict Pydantic models take."
    )
    schema_errors: dict[str, Count] = Field(
        default_factory=dict, description="Items by the first mistake that these models find, by Pydantic's name of it."
    )
    errors: dict[str, Count] = Field(
        default_factory=dict, description="Items by kind of error; an item with two kinds counts under both."
    )

    @model_validator(mode="after")
    def _names_at_most_n(self) -> Self:
        return _bounded(self, self.n, "name_ok", "schema_valid")


class AbstentionCounts(_Part):
    """One slice of the items that no function serves."""

    n: Count
    abstained: Count

    @model_validator(mode="after")
    def _at_most_n(self) -> Self:
        return _bounded(self, self.n, "abstained")


class NoCallMetrics(_Part):
    """Items that no function serves: the answer must be well-formed prose. The four counts add up to `n`."""

    n: Count
    abstained: Count = Field(description="Prose answers: the correct ones.")
    malformed: Count = Field(description="Attempted calls that do not parse; never an abstention.")
    empty: Count
    called: Count = Field(description="Well-formed calls that nobody asked for.")
    bfcl_like: Count | None = Field(
        None,
        description="Answers that BFCL takes for an abstention: whatever is no call, malformed and empty included.",
    )
    by_slice: dict[str, AbstentionCounts] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.abstained + self.malformed + self.empty + self.called != self.n:
            raise ValueError("abstained, malformed, empty and called do not add up to n")
        return self


class VariantMetrics(_Part):
    """The items of the suites changed in one way: `masked`, or `distractors:N`. Not part of the gate."""

    calls: CallMetrics | None = None
    no_call: NoCallMetrics | None = None


class Fidelity(_Part):
    """Next-token distributions against the baseline's on the reference answers, over the tokens of one class."""

    tokens: Count
    kl_mean: Measured = Field(None, description="Mean KL(baseline ‖ artifact), nats.")
    kl_p50: Measured = None
    kl_p99: Measured = None
    kl_lower: Measured = Field(None, description="Lower end of the 95 % cluster bootstrap interval of the mean.")
    kl_upper: Measured = Field(None, description="Upper end of that interval.")
    kl_room: Measured = Field(
        None, description="By how much the mean may be too small at the most: of the baseline only likely tokens stay."
    )
    top1_agreement: Measured = Field(None, description="Share of tokens on which both prefer the same token.")
    margin_mean: Measured = Field(
        None,
        description="Mean log-probability of the baseline's preferred token less that of the best other token, nats.",
    )
    margin_p1: Measured = Field(None, description="First percentile of that margin; negative where preferences flip.")
    margin_ratio: Measured = Field(
        None, description="That mean over the baseline's own: under 1 where the same decisions are made with less room."
    )
    margin_ratio_lower: Measured = Field(None, description="Lower end of its 95 % cluster bootstrap interval.")
    margin_ratio_upper: Measured = Field(None, description="Upper end of that interval.")


class Latency(_Part):
    """Batch size 1, nothing shared between prompts."""

    prompts: Count = Field(description="Answers that were timed, after one that was not: prompts times rounds.")
    prompt_tokens: Measured = Field(description="Their mean length.")
    ttft: Percentiles = Field(description="Time to first token.")
    tpot: Percentiles = Field(description="Time per output token after the first, over all gaps.")
    prefill_tokens_per_second: Measured
    decode_tokens_per_second: Measured


class ItemIssue(_Part):
    """One thing that is wrong with an answer."""

    kind: str = Field(description="What; `nested` where it is below an argument's top level.")
    function: str = Field(
        "", description="The function called, or expected and not called; empty for the whole answer."
    )
    path: str = Field("", description="The place, such as `address.zip` or `tags[2]`; empty for the whole call.")
    cause: str | None = Field(None, description="What is wrong at the place, where the kind does not say it.")


class ItemResult(_Part):
    """One item's raw outcome."""

    suite: Literal["calls", "no_call"]
    id: str
    category: str
    kind: Kind = Field(description="What the answer was.")
    correct: bool = Field(description="The endpoint of the gate: a strict exact call, or an abstention.")
    name_ok: bool
    bfcl_like: bool
    errors: list[str] = Field(default_factory=list)
    issues: list[ItemIssue] = Field(default_factory=list, description="What is wrong, by place.")
    variant: str = Field("", description="How the item was made from another; empty for the suite's own.")
    slices: list[str] = Field(default_factory=list)
    arguments_expected: Count | None = Field(None, description="Arguments that the expected calls need.")
    arguments_right: Count | None = None
    schema_valid: bool | None = Field(None, description="Whether Pydantic takes the calls; None where there is none.")
    schema_error: str | None = Field(None, description="The first mistake that Pydantic finds in the calls.")
    cut: bool = Field(False, description="Whether the answer reached the token limit before an end token.")
    loops: bool = Field(False, description="Whether it was cut while it repeated itself.")
    answer: str | None = Field(None, description="The answer's text, where it was kept.")
    kl_mean: Measured = Field(None, description="Mean KL over the item's call tokens, where it was compared.")


class RawValues(_Part):
    """What the summaries were computed from."""

    items: list[ItemResult] = Field(default_factory=list)
    ttft_seconds: list[float] = Field(default_factory=list, description="One value for each timed prompt.")
    tpot_seconds: list[float] = Field(default_factory=list, description="One value for each gap between tokens.")


class EndpointResult(_Part):
    """One question of the gate, on items paired with the baseline."""

    name: str = Field(description="`strict_call` or `abstention`.")
    margin: Measured = Field(None, description="The loss that was accepted; the gate's own where it is not given.")
    verdict: VerdictName
    n: Count
    lost: Count = Field(description="Items that only the baseline got right.")
    gained: Count = Field(description="Items that only the artifact got right.")
    baseline_rate: Measured
    candidate_rate: Measured
    loss: Measured = Field(description="baseline_rate - candidate_rate.")
    design_effect: float = Field(
        1.0,
        ge=1,
        description="Variance of the loss over that of independent items; items that show the same functions are not.",
    )
    lower: float = Field(description="One-sided Tango bound of the loss, at the level that Holm gives the endpoint.")
    upper: float = Field(description="One-sided Tango bound of the loss at alpha: PASS needs it under the margin.")
    p_over_margin: Share = Field(description="Holm-adjusted p-value of 'the loss is at most the margin'.")
    mcnemar_p: Share = Field(description="Exact two-sided McNemar p-value of 'nothing changed'.")
    items_needed: int | None = Field(None, description="Items that a PASS would take, if flips stay as seen.")
    reason: str


class LimitResult(_Part):
    """One limit of the gate on what an artifact costs, as a ratio to the baseline."""

    name: str = Field(description="ttft, tpot, disk, memory or load.")
    limit: float
    ratio: Measured = Field(description="The artifact's over the baseline's; of medians for times.")
    lower: Measured = Field(description="Lower end of the ratio's 95 % bootstrap interval.")
    upper: Measured
    verdict: VerdictName
    reason: str


class GateResult(_Part):
    """The verdict on one artifact."""

    verdict: VerdictName
    endpoints: list[EndpointResult] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list, description="Hard floors that broke; any of them is a FAIL.")
    limits: list[LimitResult] = Field(default_factory=list, description="Limits on cost, where the recipe has some.")


class ControlResult(_Part):
    """Of an artifact whose verdict was known beforehand."""

    expected: Expected
    met: bool = Field(description="Whether that came out. Where it did not, the run passes nothing.")


class ArtifactReport(_Part):
    """Everything that was measured on one artifact, or on the baseline."""

    name: str
    path: str = Field("", description="The name of its folder or file; empty for one that is gone, as controls are.")
    format: str = Field(description="hf, gptq, gguf, …")
    scheme: str | None = Field(None, description="W4A16 g64, Q8_0, …")
    runtime: str | None = None
    representative: bool = Field(True, description="Whether its speed says something about a deployment.")
    digest: str | None = Field(None, description="sha256 of the weights or of the manifest.")
    calibration_digest: str | None = None
    enforced: bool = Field(False, description="Whether its verdict decides the exit status.")
    calls: CallMetrics | None = None
    no_call: NoCallMetrics | None = None
    variants: dict[str, VariantMetrics] = Field(
        default_factory=dict, description="By variant of the suites, where any was asked for."
    )
    arms: list[ArmResult] = Field(
        default_factory=list, description="Answers held to a grammar, and routed ones, where they were asked for."
    )
    fidelity: dict[str, Fidelity] = Field(
        default_factory=dict,
        description="By token class: prompt, functions, prose, name, key, value, punct; `call` is the last four.",
    )
    fidelity_shown: dict[str, ShownFidelity] = Field(
        default_factory=dict, description="In place of `fidelity`, for a server that shows its likeliest tokens only."
    )
    chat_perplexity: Measured = None
    chat_drift: ChatDrift | None = Field(None, description="Greedy answers to the chat suite against the baseline's.")
    latency: Latency | None = None
    latency_ratios: LatencyRatios | None = Field(
        None, description="Times over the baseline's; None where both were not timed in turn."
    )
    latency_grid: LatencyGrid | None = Field(None, description="Batches, where prompt lengths and sizes were given.")
    slower: list[str] = Field(
        default_factory=list,
        description="What it is slower at than the baseline, a sentence each: the ratio's whole interval is over 1.",
    )
    serving: list[ServingLevel] = Field(default_factory=list, description="A server under load, by concurrency.")
    load_seconds: Measured = None
    cpu_seconds: Measured = Field(None, description="Processor time of the whole measurement.")
    peak_rss_bytes: Count | None = None
    peak_gpu_bytes: Count | None = Field(None, description="What torch held of a GPU at most; None without one.")
    disk_bytes: Count | None = None
    gate: GateResult | None = Field(None, description="None for the baseline.")
    control: ControlResult | None = Field(None, description="What was expected of a control; None for the others.")
    layer_errors: LayerErrors | None = Field(None, description="None where the format has no errors by linear.")
    notes: list[str] = Field(default_factory=list)
    raw: RawValues = RawValues()

    @property
    def own_items(self) -> list[ItemResult]:
        """The outcomes of the suites' own items; their variants are no part of the gate."""
        return [item for item in self.raw.items if not item.variant]


class Report(_Part):
    """A whole bench run: what ran, on what, and the verdict on each artifact against the baseline."""

    schema_version: Literal[1] = Field(1, description="Version of this format.")
    name: str = Field(description="The recipe's name, or what was judged.")
    created: str = Field(description="When the run ended, ISO 8601 with its zone.")
    verdict: VerdictName = Field(description="Over the enforced artifacts: FAIL if any fails, PASS if all pass.")
    gate: GateSettings
    suites: Suites
    dialect: str
    max_new_tokens: Count | None = None
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] | None = None
    machine: Machine
    versions: dict[str, str]
    baseline: ArtifactReport
    artifacts: list[ArtifactReport]
    texts: Texts = Texts()

    @property
    def everyone(self) -> list[ArtifactReport]:
        """The baseline, then the artifacts."""
        return [self.baseline, *self.artifacts]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [artifact.name for artifact in self.everyone]
        if len(set(names)) != len(names):
            raise ValueError(f"two artifacts share a name: {', '.join(sorted(names))}")
        return self


def _bounded(part: _P, n: int, *names: str, of: str = "n") -> _P:
    for name in names:
        value = getattr(part, name)
        if value is not None and value > n:
            raise ValueError(f"{name} is more than {of}")
    return part
