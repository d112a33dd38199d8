"""onnxruntime-genai's builder, in a child process: it prints, keeps memory, and exits with 0 whatever it wrote."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lf_export.errors import StepError
from lf_export.formats.onnx_child import CONFIG_NAME, GRAPH_NAME, run_exporter
from lf_export.formats.onnx_rules import Route

_LM_HEAD = "/lm_head/MatMul"
_EMBEDDING = "/model/embed_tokens/Gather"


def builder_options(lm_head: str, *, tied: bool, accuracy_level: int | None) -> dict[str, str]:
    """The builder's options, each said: what it does when it is not told changes what is quantized.

    Args:
        lm_head: `float`, `int8` or `int4`.
        tied: whether the output shares the embedding's weight. A tied output in float shares it in the graph too; a
            quantized one is a matrix of its own, and the embedding stays as it is.
        accuracy_level: of quantized nodes: 1 computes in fp32, 4 rounds activations to int8; None where no node is.
    """
    # a window is written into the graph by `set_windows`, so no runtime has to keep a cache of its size
    options = {"hf_token": "false", "hf_remote": "false", "windowed_kv_cache": "false"}
    # fused into the attention node, the norms of q and k run on CUDA alone, and no graph could be compared here
    options["fuse_qk_norm_gqa"] = "false"
    options["shared_embeddings"] = str(tied and lm_head == "float").lower()
    if accuracy_level is not None:
        options["accuracy_level"] = str(accuracy_level)
        kept = [_EMBEDDING, _LM_HEAD] if lm_head == "float" else [_EMBEDDING]
        options["nodes_to_exclude"] = ",".join(kept)
        if lm_head != "float":
            options["matmul_mixed_precision"] = f"last_matmul:{lm_head}"
    return options


def build(source: Path, out: Path, scratch: Path, route: Route, options: Mapping[str, str], threads: int) -> None:
    """Build the graph of the model in `source` into the folder `out`.

    Args:
        source: a Hugging Face folder.
        out: an existing folder.
        scratch: a folder for the builder's cache and what it prints.
        route: precision and provider.
        options: as `builder_options` gives them.
        threads: of the child.

    Raises:
        StepError: the builder failed, or left no graph.
    """
    command = ["onnxruntime_genai.models.builder", "-i", str(source), "-o", str(out)]
    command += ["-p", route.precision, "-e", route.provider, "-c", str(scratch / "cache"), "--extra_options"]
    command += [f"{name}={value}" for name, value in options.items()]
    memory = "it needs about four times the model's size in memory"
    made = [out / GRAPH_NAME, out / CONFIG_NAME]
    run_exporter(command, "onnxruntime-genai's builder", scratch / "builder.log", made, threads, memory)


def set_windows(graph: Path, windows: Sequence[int | None]) -> None:
    """Let each layer look back as far as the model's does.

    The builder leaves out the window of Mistral: its graphs look at everything, which shows only in prompts that are
    longer than the window. `local_window_size` counts the token itself, as Transformers' `sliding_window` does.

    Raises:
        StepError: the graph does not have one attention node for each layer.
    """
    import onnx  # noqa: PLC0415 - an extra

    model = onnx.load(str(graph), load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    if [node.name.split("/")[2] for node in nodes] != [f"layers.{index}" for index in range(len(windows))]:
        raise StepError(f"{graph.name}: {len(nodes)} attention nodes for {len(windows)} layers")
    for node, window in zip(nodes, windows, strict=True):
        kept = [each for each in node.attribute if each.name != "local_window_size"]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("local_window_size", window or -1)])
    graph.write_bytes(model.SerializeToString())


def aim_at(out: Path, provider: str) -> None:
    """Let the config in `out` ask for `provider`, where the builder was asked for another one's graph."""
    path = out / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    session = config["model"]["decoder"]["session_options"]
    if provider == "cpu" and session.get("provider_options"):
        session["provider_options"] = []
        path.write_text(json.dumps(config, indent=4), encoding="utf-8")
