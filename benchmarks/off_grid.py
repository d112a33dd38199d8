"""Takes a Llama's weights off the grid that they were once rounded to, without changing what it computes.

SmolLM2-135M-Instruct comes from a Q4_1 file, so its weights sit on a 4-bit grid and any quantizer that finds that grid
again looks perfect. Here norms go into the linears that read them, and seeded factors between neighbours that cancel:
norm against linears, rows of up_proj against columns of down_proj, rows of v_proj against columns of o_proj.

    python benchmarks/off_grid.py MERGED OUT [--spread 0.35] [--seed 0] [--as phi3]

With --as the same function is written as another architecture's: qwen2 (biases of zero on q, k and v), phi3 (q, k, v in
one linear, gate and up in one).
"""

import argparse
import json
from pathlib import Path
from typing import Any

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def take_off(tensors: dict[str, Any], config: dict[str, Any], spread: float, seed: int) -> dict[str, Any]:
    """The same function in other weights; factors are exp(spread · N(0, 1))."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    dtype = tensors["model.norm.weight"].dtype
    new = {name: tensor.float() for name, tensor in tensors.items()}

    def factors(count: int) -> Any:
        return torch.exp(spread * torch.randn(count, generator=generator))

    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm, readers in READERS.items():
            gain = new[f"{prefix}{norm}.weight"]
            scale = factors(len(gain))
            for reader in readers:
                new[f"{prefix}{reader}.weight"] *= gain * scale
            new[f"{prefix}{norm}.weight"] = 1 / scale
        scale = factors(config["intermediate_size"])
        new[f"{prefix}mlp.up_proj.weight"] *= scale[:, None]
        new[f"{prefix}mlp.down_proj.weight"] /= scale
        scale = factors(kv_heads * width)
        new[f"{prefix}self_attn.v_proj.weight"] *= scale[:, None]
        shared = scale.view(kv_heads, 1, width).expand(kv_heads, heads // kv_heads, width).reshape(-1)
        new[f"{prefix}self_attn.o_proj.weight"] /= shared
    return {name: tensor.to(dtype).contiguous() for name, tensor in new.items()}


def as_qwen2(tensors: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and the config as Qwen 2's."""
    import torch

    new = dict(tensors)
    for layer in range(config["num_hidden_layers"]):
        for part in ("q", "k", "v"):
            stem = f"model.layers.{layer}.self_attn.{part}_proj"
            new[f"{stem}.bias"] = torch.zeros(len(tensors[f"{stem}.weight"]), dtype=tensors[f"{stem}.weight"].dtype)
    kept = {key: value for key, value in config.items() if key not in {"attention_bias", "mlp_bias", "pretraining_tp"}}
    return new, kept | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False}


def as_phi3(tensors: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and the config as Phi 3's."""
    import torch

    new = dict(tensors)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for fused, parts in (
            ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            new[f"{prefix}{fused}.weight"] = torch.cat([new.pop(f"{prefix}{part}.weight") for part in parts])
    gone = {"attention_bias", "mlp_bias", "pretraining_tp", "head_dim"}
    kept = {key: value for key, value in config.items() if key not in gone}
    length = config["max_position_embeddings"]
    return new, kept | {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "original_max_position_embeddings": length,
        "sliding_window": None,
        "partial_rotary_factor": 1.0,
    }


ARCHITECTURES = {"qwen2": as_qwen2, "phi3": as_phi3}


def main() -> None:
    """Parse the command line and write the folder."""
    from safetensors.torch import save_file

    from lf_export.checkpoint.carry import copy_companions
    from lf_export.checkpoint.index import open_checkpoint

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Llama folder without biases")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--spread", type=float, default=0.35, help="standard deviation of the factors' logarithm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as", dest="architecture", choices=tuple(ARCHITECTURES), help="write it as this one")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model)
    if checkpoint.config.get("model_type") != "llama":
        parser.error(f"{options.model}: not a Llama: {json.dumps(checkpoint.config.get('model_type'))}")
    tensors = {name: checkpoint.read(name) for name in checkpoint.tensors}
    options.out.mkdir(parents=True)
    tensors = take_off(tensors, dict(checkpoint.config), options.spread, options.seed)
    config = dict(checkpoint.config)
    if options.architecture:
        tensors, config = ARCHITECTURES[options.architecture](tensors, config)
    save_file(tensors, options.out / "model.safetensors", metadata={"format": "pt"})
    copy_companions(options.model, options.out, lambda _: config)


if __name__ == "__main__":
    main()
