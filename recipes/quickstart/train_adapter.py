"""Train the quickstart's adapter: a LoRA with which SmolLM2-135M-Instruct calls functions.

    python recipes/quickstart/train_adapter.py --steps 900 --out FOLDER [--resume FOLDER …]

Data: the training split of `calibration/seeds/`, through `calibration/generator`, with fresh values and fresh blocks of
functions at every step; nothing of the evaluation split. Several conversations stand behind one functions block and
share it: each sees the block and itself (a 4-D attention mask, positions counted on from the block), which is the same
as training on each alone, at about a third of the tokens. Loss on answers only. See MODEL_CARD.md for what came out.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

from lf_export.functions.dialects import dialect_for, text_of
from lf_export.functions.spec import from_openai

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "calibration")]

import peft_alone  # noqa: E402, F401
from fetch_base import fetch_base  # noqa: E402
from generator.seeds import load_chat, load_split  # noqa: E402
from generator.training import MIXES, Group, training_group  # noqa: E402

ANSWER_TOKENS = 200  # about what a group has
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Packed:
    """Branches behind one prefix: token ids, positions, and who belongs to which branch (0 = the prefix)."""

    ids: torch.Tensor  # [t]
    positions: torch.Tensor  # [t]
    owner: torch.Tensor  # [t]
    answer: torch.Tensor  # [t] bool: tokens that the model must learn to write


class Renderer:
    """Groups of conversations as packed tokens, in the package's own chat-template dialect."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.dialect = dialect_for("chat-template", tokenizer)

    def pack(self, group: Group, most_tokens: int) -> Packed:
        """The group in one sequence; branches that would go beyond `most_tokens` are left out."""
        functions = from_openai(group.tools)
        ids: list[int] = []
        positions: list[int] = []
        owner: list[int] = []
        answer: list[bool] = []
        shared = 0
        for number, (_, messages) in enumerate(group.branches, 1):
            branch, marks = self.encode(messages, functions)
            if number == 1:
                shared = self._system_length(branch)
                ids, positions, owner = branch[:shared], list(range(shared)), [0] * shared
                answer = [False] * shared
            if branch[:shared] != ids[:shared]:
                raise AssertionError("branches of one group must begin with the same system message")
            if len(ids) + len(branch) - shared > most_tokens and number > 1:
                continue
            ids += branch[shared:]
            positions += range(shared, len(branch))
            owner += [number] * (len(branch) - shared)
            answer += marks[shared:]
        return Packed(*(torch.tensor(values) for values in (ids, positions, owner, answer)))

    def encode(self, messages: list[dict[str, Any]], functions: Any) -> tuple[list[int], list[bool]]:
        """The token ids of a whole conversation, and which of them are answers."""
        pieces = self.dialect.render(messages, functions)
        spans = []
        start = 0
        for piece in pieces:
            if piece.role in {"call", "prose"}:
                spans.append((start, start + len(piece.text)))
            start += len(piece.text)
        coded = self.tokenizer(text_of(pieces), add_special_tokens=False, return_offsets_mapping=True)
        marks = [any(low <= first < high for low, high in spans) for first, _ in coded["offset_mapping"]]
        return coded["input_ids"], marks

    def _system_length(self, ids: list[int]) -> int:
        """The tokens of the system message: up to the second <|im_start|>."""
        start = self.tokenizer.convert_tokens_to_ids("<|im_start|>")
        return ids.index(start, 1)


def vocabulary(tokenizer: Any) -> list[str]:
    """The words of four letters and more that the tokenizer writes as one token."""
    return sorted(token[1:] for token in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{4,}", token))


def packed_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, *, parts: list[int], **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention over a prefix and branches of `parts` tokens: each branch sees the prefix and itself.

    The shape of Transformers' attention functions: `query` is [1, heads, t, d], `key` and `value` have fewer heads.
    The scores between branches, most of a t × t matrix, are never computed; plain products are twice as quick here
    as the fused kernel for CPUs, whose backward pass is slow in bfloat16.
    """
    del mask
    groups = module.num_key_value_groups
    _, heads, tokens, width = query.shape
    query = (query[0] * width**-0.5).view(heads // groups, groups, tokens, width)
    queries, keys, values = query.split(parts, 2), key[0].split(parts, 1), value[0].split(parts, 1)
    outputs = [_attend(queries[0], keys[0], values[0])]
    for branch in range(1, len(parts)):
        near = torch.cat([keys[0], keys[branch]], 1), torch.cat([values[0], values[branch]], 1)
        outputs.append(_attend(queries[branch], *near))
    return torch.cat(outputs, 2).view(1, heads, tokens, width).transpose(1, 2).contiguous(), None


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last tokens: `query` [h, g, t, d], `key` and `value` [h, s, d] with s >= t."""
    heads, groups, tokens, width = query.shape
    seen = key.shape[1]
    scores = torch.bmm(query.reshape(heads, groups * tokens, width), key.transpose(1, 2))
    future = torch.full((tokens, seen), float("-inf"), dtype=scores.dtype).triu(seen - tokens + 1)
    weights = torch.softmax(scores.view(heads, groups, tokens, seen) + future, -1)
    return torch.bmm(weights.view(heads, groups * tokens, seen), value).view(heads, groups, tokens, width)


AttentionInterface.register("packed", packed_attention)


def losses(model: Any, packed: Packed, first: float = 1.0) -> torch.Tensor:
    """The negative log-likelihood of each answer token, [answers]; logits are made for these only.

    `first` multiplies that of each answer's first token, which decides between a call and prose.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = inner.model(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        use_cache=False,
        parts=packed.owner.bincount().tolist(),
    ).last_hidden_state[0]
    places = packed.answer.nonzero()[:, 0]
    # An answer never begins a branch, so the token before it predicts it.
    logits = inner.lm_head(hidden[places - 1]).float()
    weights = torch.where(packed.answer[places - 1], 1.0, first)
    return torch.nn.functional.cross_entropy(logits, packed.ids[places], reduction="none") * weights


class Trainer:
    """AdamW on float32 copies of the adapter's bfloat16 weights."""

    def __init__(self, model: Any, rate: float) -> None:
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.masters = [weight.detach().float().clone() for weight in self.weights]
        self.rate = rate
        self.optimizer = torch.optim.AdamW(self.masters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        """One update at `factor` of the learning rate, gradients summed over the workers and clipped to norm 1."""
        total = torch.cat([weight.grad.float().flatten() for weight in self.weights])
        if dist.is_initialized():
            dist.all_reduce(total)
        for master, part in zip(self.masters, total.split([m.numel() for m in self.masters]), strict=True):
            master.grad = part.view_as(master)
        for weight in self.weights:
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.param_groups[0]["lr"] = self.rate * factor
        self.optimizer.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights, strict=True):
                weight.copy_(master)


def schedule(step: int, steps: int, hold: float) -> float:
    """Warm up over 20 steps, hold until `hold` of the steps, and fall linearly over the rest."""
    return min((step + 1) / 20, 1.0, max((steps - step) / ((1 - hold) * steps), 0.02))


def build_model(base: Path, seed: int, resume: list[Path]) -> Any:
    """The bfloat16 base with a LoRA of rank 16 on the seven linears of each layer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, attn_implementation="packed")
    config = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, bias="none", target_modules=LINEARS, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config, autocast_adapter_dtype=False)
    if resume:
        names = {name.replace(".default.weight", ".weight"): weight for name, weight in model.named_parameters()}
        with torch.no_grad():
            for name, tensor in mean_of(resume).items():
                names[name].copy_(tensor)
    return model


def mean_of(adapters: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of adapters that were trained from one another, which is often better than each."""
    saved = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    return {name: torch.stack([each[name].float() for each in saved]).mean(0) for name in saved[0]}


def save(model: Any, folder: Path) -> None:
    """Write the adapter; its config names the base by its public name, not by where it lies on this machine."""
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": BASE_NAME, "target_modules": LINEARS}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def main() -> None:
    """Train, and save checkpoints on the way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter and its checkpoints")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--groups", type=int, default=4, help="groups of conversations in a step")
    parser.add_argument("--branches", type=int, default=8, help="conversations in a group")
    parser.add_argument("--mix", choices=sorted(MIXES), default="calls", help="shares of the kinds of conversations")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--hold", type=float, default=0.6, help="share of the steps at the full learning rate")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--most-tokens", type=int, default=900, help="tokens of a group at most")
    parser.add_argument("--fresh", action="store_true", help="renew values and enumerations: what is copied, not known")
    parser.add_argument("--first", type=float, default=1.0, help="weight of an answer's first token: call or prose")
    parser.add_argument(
        "--resume", type=Path, nargs="+", default=[], help="an adapter to go on from, or several: their mean"
    )
    parser.add_argument("--save-every", type=int, default=20)
    # One-threaded workers that meet once a step do not wait for each other inside every matrix product.
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.groups % options.workers:
        parser.error("--groups must be a multiple of --workers")
    if options.worker is None and options.workers > 1:
        _start_workers(options.workers)
    else:
        train(options)


def _start_workers(count: int) -> None:
    """Run this command once for each worker; the first failure ends all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *sys.argv, "--meet", str(Path(folder) / "meet")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # Sessions of their own: Linux divides a busy processor between sessions before it does between processes.
        running = [
            subprocess.Popen([*command, "--worker", str(number)], env=environment, start_new_session=True)
            for number in range(count)
        ]
        try:
            failed = any(process.wait() for process in running)
        finally:
            for process in running:
                process.kill()
    sys.exit(int(failed))


def train(options: argparse.Namespace) -> None:
    """The training of one worker; all hold the same adapter, each takes its part of a step's groups."""
    worker = options.worker or 0
    if options.workers > 1:
        where = f"file://{options.meet}"
        dist.init_process_group("gloo", init_method=where, rank=worker, world_size=options.workers)
    base = fetch_base()
    renderer = Renderer(AutoTokenizer.from_pretrained(base))
    model = build_model(base, options.seed, options.resume)
    trainer = Trainer(model, options.rate)
    split, chat = load_split("train"), load_chat("train")
    words = vocabulary(renderer.tokenizer) if options.fresh else None
    began, tokens, samples, recent = time.monotonic(), 0, 0, []
    if worker == 0 and not options.steps:  # a mean as it is
        save(model, options.out)
    for step in range(options.steps):
        for number in range(worker, options.groups, options.workers):
            # Its own seed for each group: the data do not depend on the number of workers.
            rng = random.Random(f"{options.seed} {step} {number}")
            group = training_group(split, chat, rng, options.branches, options.mix, words)
            packed = renderer.pack(group, options.most_tokens)
            loss = losses(model, packed, options.first)
            # A sum over a fixed count, not a mean: a token weighs the same in every group.
            (loss.sum() / (ANSWER_TOKENS * options.groups)).backward()
            recent.append(float(loss.detach().mean()))
            tokens += len(packed.ids)
            samples += len(group.branches)
        trainer.step(schedule(step, options.steps, options.hold))
        if worker == 0 and (step + 1) % 5 == 0:
            seconds = time.monotonic() - began
            mean = sum(recent) / len(recent)
            recent.clear()
            row = {"step": step + 1, "loss": round(mean, 4), "samples": samples * options.workers}
            row |= {"seconds": round(seconds), "tokens_per_s": round(tokens * options.workers / seconds)}
            print(json.dumps(row), flush=True)
        if worker == 0 and ((step + 1) % options.save_every == 0 or step + 1 == options.steps):
            save(model, options.out)


if __name__ == "__main__":
    main()
