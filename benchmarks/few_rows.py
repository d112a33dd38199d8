"""How many rows must an expert have seen, and what serves one that has not: rounding, or the rows of all experts.

No small mixture of experts with trained weights can be had without a model hub. So a dense model's feed-forward stands
in for every expert, on its own activations, shared out by a linear router: centroids of its input (k-means), of which
each token takes the nearest two of eight. An expert is calibrated with N of its rows, and the 4-bit error of each way
is measured on the rows of other conversations that are sent to it, as a share of rounding to nearest's.

    python benchmarks/off_grid.py MERGED OFF_GRID
    python benchmarks/few_rows.py --model OFF_GRID [--json FILE]
"""

import argparse
import json
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any

from gptq import prepare
from ran import environment

LAYERS = (4, 14, 24)  # of 30
EXPERTS, CHOSEN = 8, 2
SHARES = (1 / 288, 1 / 144, 1 / 64, 1 / 32, 1 / 16, 1 / 4, 1.0)


def inputs_of(model: Any, ids: list[list[int]], layers: list[int]) -> dict[str, Any]:
    """The inputs of gate and down at some layers, by linear, [tokens, width]."""
    import torch

    seen: dict[str, list[Any]] = {}
    hooks = []
    for layer in layers:
        for name in ("gate_proj", "down_proj"):
            linear = model.model.layers[layer].mlp.get_submodule(name)
            key = f"{layer}.{name}"
            hook = lambda _, args, key=key: seen.setdefault(key, []).append(args[0][0])  # noqa: E731
            hooks.append(linear.register_forward_pre_hook(hook))
    with torch.no_grad():
        for each in ids:
            model.model(torch.tensor([each]))
    for each in hooks:
        each.remove()
    return {key: torch.cat(rows) for key, rows in seen.items()}


def routes(X: Any, others: Any) -> tuple[Any, Any]:
    """Which experts each row is sent to, [rows, experts]: of X, from which the centroids are, and of other rows."""
    import torch

    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(X, dim=1)
    centres = unit[torch.randperm(len(X), generator=generator)[:EXPERTS]]
    for _ in range(15):
        nearest = (unit @ centres.t()).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        centres = torch.nn.functional.normalize(sums, dim=1)

    def sent(rows: Any) -> Any:
        scores = torch.nn.functional.normalize(rows, dim=1) @ centres.t()
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(CHOSEN).indices, value=True)

    return sent(X), sent(others)


def moments_of(X: Any) -> Any:
    """The moments of some rows."""
    from lf_export.quant import Moments

    found = Moments.zeros(X.shape[1])
    found.add(X)
    return found


def errors(W: Any, own: Any, pooled: Any, judged: Any) -> dict[str, float]:
    """The error of each way on the rows that judge, as a share of rounding's."""
    import torch

    from lf_export.quant import Scheme
    from lf_export.quant.gptq import dequantize, factorize, gptq, rtn
    from lf_export.quant.solve import _SHRINKAGE

    scheme = Scheme(bits=4, group_size=64)

    def loss(quantized: Any) -> float:
        return float(((W - dequantize(quantized)) @ judged.t()).square().sum(dtype=torch.float64))

    def solved(moments: Any) -> float:
        shrinkage = _SHRINKAGE * moments.width / moments.count
        return loss(gptq(W, factorize(moments.H.clone(), scheme, shrinkage), scheme))

    plain = loss(rtn(W, scheme))
    found = {"own": solved(moments_of(own)) / plain}
    if pooled is not None:
        found["pooled"] = solved(moments_of(pooled)) / plain
    return found


def measure(model: Any, calibration: Any, heldout: Any, layers: list[int]) -> dict[str, Any]:
    """Linear → share of its width in rows → way → the geometric mean of its errors over layers and experts."""
    import torch

    table: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        X, held = calibration[f"{layer}.gate_proj"], heldout[f"{layer}.gate_proj"]
        sent, sent_held = routes(X, held)
        for name, pools in (("gate_proj", True), ("down_proj", False)):
            W = model.model.layers[layer].mlp.get_submodule(name).weight.detach()
            rows, judging = calibration[f"{layer}.{name}"], heldout[f"{layer}.{name}"]
            for expert in range(EXPERTS):
                own, judged = rows[sent[:, expert]], judging[sent_held[:, expert]]
                own = own[torch.randperm(len(own), generator=generator)]
                for share in SHARES:
                    count = int(share * W.shape[1])
                    if count > len(own) or len(judged) < 64:
                        continue
                    # the starved expert has no more than these rows in the pool either
                    pool = torch.cat([rows[~sent[:, expert]], own[:count]]) if pools else None
                    for way, error in errors(W, own[:count], pool, judged).items():
                        table.setdefault(name, {}).setdefault(str(share), {}).setdefault(way, []).append(error)
    return {
        name: {
            share: {"experts": len(ways["own"])} | {way: geometric_mean(values) for way, values in ways.items()}
            for share, ways in shares.items()
        }
        for name, shares in table.items()
    }


def main() -> None:
    """Parse the command line, measure, print the table."""
    import torch
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Llama folder, off its grid")
    parser.add_argument("--samples", type=int, default=48, help="conversations to calibrate with")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        prepare(options.model, Path(scratch), options.samples, 24)
        ids = json.loads((Path(scratch) / "ids.json").read_text())
        held = [item["ids"] for item in json.loads((Path(scratch) / "heldout.json").read_text())]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    table = measure(
        model, inputs_of(model, ids, options.layers), inputs_of(model, held, options.layers), options.layers
    )
    print("| linear | rows / width | own rows | rows of all experts | experts |\n|---|---|---|---|---|")
    for name, shares in table.items():
        for share, ways in shares.items():
            pooled = f"{ways['pooled']:.3f}" if "pooled" in ways else ""
            print(f"| {name} | 1/{1 / float(share):g} | {ways['own']:.3f} | {pooled} | {ways['experts']} |")
    result = {
        "model": options.model.name,
        "tokens": sum(map(len, ids)),
        "heldout_tokens": sum(map(len, held)),
        "layers": options.layers,
        "threads": 1,
        "table": table,
        **environment("torch", "transformers"),
    }
    print(f"\n{result['model']}: {result['tokens']:,} tokens, {result['heldout_tokens']:,} that judge, 1 thread")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
