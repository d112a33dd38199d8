"""What a recipe may say, as types; unknown keys are errors."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from lf_export.errors import InputError
from lf_export.functions.dialects import DIALECTS
from lf_export.recipe.names import ArmName, ArtifactName, Strict, VariableName
from lf_export.recipe.speed import LatencyRecipe
from lf_export.recipe.suggest import did_you_mean
from lf_export.recipe.targets import Target, a_size
from lf_export.recipe.verdict import GateRecipe, SignRecipe
from lf_export.runtimes.endpoint_settings import Api, Endpoint, checked_url

TokenClassName = Annotated[str, StringConstraints(pattern=r"^(prompt|functions|prose|name|key|value|punct)$")]
"""Where a token stands: the last four are inside a function call."""

RESERVED_NAMES = frozenset({"merged", "calibration", "bench", "report"})
"""Names of the other folders in a run."""


def _a_dialect(name: str) -> str:
    if name not in DIALECTS:
        raise ValueError(
            f"no dialect is named {name!r}, expected one of {', '.join(DIALECTS)}{did_you_mean(name, DIALECTS)}"
        )
    return name


class BaseSource(Strict):
    """Where the base model comes from: a folder, or a script beside the recipe that makes one."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [key], "properties": {key: {"type": "string"}}} for key in ("path", "script")]
        }
    )

    path: str | None = Field(None, description="A Hugging Face folder; relative to the recipe.")
    script: str | None = Field(
        None,
        description="A Python script in the recipe's folder tree that prepares the base model and prints the path of "
        "its Hugging Face folder as the last line of its standard output. It runs with the same interpreter.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.script is None):
            raise ValueError("expected exactly one of 'path' and 'script'")
        return self


class AdapterSource(Strict):
    """An adapter and what it counts; a text alone is its path."""

    path: str = Field(description="A PEFT adapter folder; relative to the recipe.")
    weight: float = Field(1.0, allow_inf_nan=False, description="What it counts: a factor of everything it adds.")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A text alone is allowed too, which the validator before does not say."""
        text = {"type": "string", "description": "A PEFT adapter folder; relative to the recipe."}
        return {"anyOf": [text, handler.resolve_ref_schema(handler(core))]}


class MergeRecipe(Strict):
    """How adapters are merged."""

    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, description="The merged model's dtype; the base's own where it is not given."
    )
    combine: Literal["in-order", "linear", "cat"] = Field(
        "in-order",
        description="`in-order` adds each adapter after the other, rounded each time; `linear` and `cat` first make "
        "one adapter of them, as PEFT's `add_weighted_adapter` does.",
    )
    dequantize_base: bool = Field(
        False, description="Merge into what the weights of a quantized base (GPTQ, AWQ, bitsandbytes NF4) stand for."
    )
    check_logits: bool = Field(
        False,
        description="Compare the merged model's logits with those of base and adapters unmerged; two forward passes.",
    )


class CalibrationRecipe(Strict):
    """Which conversations the quantizers see."""

    calls: list[str] = Field(
        default_factory=lambda: ["shipped:calls.jsonl"],
        description="Files of function-call conversations; `shipped:NAME` is a file that ships with lf-export.",
    )
    chat: list[str] = Field(
        default_factory=lambda: ["shipped:chat.jsonl"], description="Files of conversations without functions."
    )
    dialect: Annotated[str, AfterValidator(_a_dialect), Field(json_schema_extra={"enum": list(DIALECTS)})] = Field(
        "chat-template", description="How conversations are rendered: as the model was trained."
    )
    call_share: float = Field(0.5, ge=0.0, le=1.0, description="The share of tokens from function-call conversations.")
    num_samples: int = Field(128, ge=1, description="How many conversations at the most.")
    max_seq_length: int = Field(2048, ge=16, description="Longer conversations are dropped by name, never cut.")
    allow_dropped: float = Field(0.0, ge=0, le=1, description="The share of call tokens that may be lost that way.")
    weights: dict[TokenClassName, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="What a token counts in the moments, by class; 1 where it is not named."
    )
    seed: int = Field(0, ge=0, description="The seed of the selection.")


VariantName = Annotated[str, StringConstraints(pattern=r"^(masked|distractors:([1-9]|[1-5][0-9]|6[0-4]))$")]


class SuiteRecipe(Strict):
    """A suite of items, whole or a stratified part."""

    path: str = Field(
        description="A JSONL or parquet file; `shipped:NAME` ships with lf-export; `bfcl:PATH` is the leaderboard's "
        "wheel or a folder of its data; `hf:NAME[:SPLIT]` is a dataset of the Hugging Face hub."
    )
    limit: int | None = Field(None, ge=1, description="How many items: a stratified part; all where it is not given.")


def _a_url(text: str) -> str:
    try:
        return checked_url(text)
    except InputError as error:
        raise ValueError(error.message) from error


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EndpointRecipe(Strict):
    """A server with an OpenAI-compatible interface that is judged as an artifact is."""

    url: Annotated[str, AfterValidator(_a_url)] = Field(
        description="Where its interface begins, such as http://127.0.0.1:8080/v1; no credentials in it."
    )
    artifact: ArtifactName | None = Field(
        None, description="The artifact of this recipe that it serves: for its size, scheme and digest."
    )
    model: str | None = Field(None, description="The model's name there; the only one it lists where not given.")
    api: Api = Field(
        "auto",
        description="`completions` takes our own prompt, `chat` messages and tools; `auto`: completions where offered.",
    )
    api_key_env: VariableName | None = Field(
        None,
        description="The environment variable that holds the key; OPENAI_API_KEY where not given, over https or to "
        "this machine alone.",
    )
    concurrency: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default_factory=lambda: [1, 4], min_length=1, description="Requests under way together, one measurement each."
    )
    requests: int = Field(16, ge=1, description="Requests of each such measurement, as many as are under way at least.")
    ttft_limit: Seconds = Field(1.0, description="Goodput: seconds to the first token.")
    tpot_limit: Seconds = Field(0.1, description="Goodput: seconds for each token after it.")
    connect_timeout: Seconds = Field(5.0, description="Seconds for a connection.")
    read_timeout: Seconds = Field(60.0, description="Seconds without a byte.")
    total_timeout: Seconds = Field(300.0, description="Seconds for a whole answer.")
    max_answer_bytes: int = Field(8 << 20, ge=1024, description="The longest answer, as it comes over the wire.")
    retries: int = Field(
        4, ge=0, le=20, description="How often a request is repeated that was turned away (429, 5xx) or cut off."
    )

    def settings(self) -> Endpoint:
        """As the runtime takes them."""
        given = self.model_dump(exclude={"artifact"})
        return Endpoint(**given | {"concurrency": tuple(self.concurrency)})


class BenchRecipe(Strict):
    """What the artifacts are judged on."""

    calls: SuiteRecipe = SuiteRecipe(path="shipped:suites/calls.jsonl")
    no_call: SuiteRecipe = SuiteRecipe(path="shipped:suites/no-call.jsonl")
    chat: SuiteRecipe = SuiteRecipe(path="shipped:suites/chat.jsonl")
    variants: list[VariantName] = Field(
        default_factory=list,
        description="The same items changed, reported beside the gate: `masked` (functions and arguments under neutral "
        "names), `distractors:N` (N functions of other items shown too).",
    )
    arms: list[ArmName] = Field(
        default=["raw"],
        description="Ways to answer: `raw`, which the gate judges and which is always measured; beside it "
        "`constrained`, held to a grammar of the calls, and `routed`, where a classifier decides call or prose.",
    )
    allow_contaminated: list[str] = Field(
        default_factory=list,
        description="Functions of the suites, or whole suites (`calls`, `no-call`), that may be calibrated on.",
    )
    max_new_tokens: int = Field(192, ge=8, description="The longest answer, in tokens.")
    fidelity_items: int = Field(96, ge=0, description="Items whose reference answers are compared token by token.")
    drift_items: int = Field(8, ge=0, description="Conversations of the chat suite that are answered and compared.")
    drift_tokens: int = Field(32, ge=1, description="The longest of these answers, in tokens.")
    latency_prompts: int = Field(8, ge=1, description="Prompts that are timed one at a time.")
    latency_tokens: int = Field(48, ge=2, description="Tokens generated for each timed prompt.")
    latency_rounds: int = Field(
        2, ge=1, description="How often each prompt is timed in artifact and baseline, in turn; even is fair to both."
    )
    latency: LatencyRecipe | None = Field(
        None, description="Prompt lengths and batch sizes that are timed too; none where not given."
    )
    runtimes: dict[ArtifactName, Literal["torch", "transformers", "llamacpp", "onnx", "genai"]] = Field(
        default_factory=dict, description="A runtime other than the format's own, by artifact."
    )
    endpoints: dict[ArtifactName, EndpointRecipe] = Field(
        default_factory=dict, description="Servers that are judged too, by the name that the report gives them."
    )
    seed: int = Field(0, ge=0)


class Recipe(Strict):
    """A whole release run: merge, calibrate, quantize, bench, verdict."""

    version: Literal[1] = Field(1, description="The recipe format's version.")
    name: ArtifactName
    base: BaseSource
    adapters: list[AdapterSource] = Field(
        min_length=1, description="PEFT adapter folders: each a path, or a path and a weight."
    )
    output: str = Field(description="The run's folder; relative to the folder the command is started in.")
    threads: int | None = Field(None, ge=1, description="Threads; all cores of the process where not given.")
    memory: Annotated[str, AfterValidator(a_size)] | None = Field(
        None,
        description="Activations of `quantize` to hold in memory, such as `4GB`; more lie on disk. A quarter of "
        "what is available where not given.",
    )
    merge: MergeRecipe = MergeRecipe()
    calibration: CalibrationRecipe = CalibrationRecipe()
    quantize: dict[ArtifactName, Target] = Field(min_length=1, description="The artifacts, by name.")
    bench: BenchRecipe | None = Field(
        default_factory=BenchRecipe, description="What is measured; `null` to quantize only, which gives no verdict."
    )
    gate: GateRecipe = GateRecipe()
    sign: SignRecipe | None = Field(
        None, description="Sign each artifact that passed, with a bill of materials, at the end; not where not given."
    )
