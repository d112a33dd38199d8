"""Mixed precision: what matters most gets more bits, the average is kept, and nothing of the choice is left behind."""

import gc
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_model
from safetensors.torch import load_file, save_file
from walk_data import RandomData, random_data

from lf_export.checkpoint.index import Checkpoint, open_checkpoint
from lf_export.checkpoint.staging import staging
from lf_export.errors import InputError
from lf_export.formats.gptq import FORMAT, GptqOptions
from lf_export.quant.pack import stored_bits
from lf_export.recipe import Recipe
from lf_export.steps import estimate
from lf_export.steps.quantize import TargetPlan, targets_from_names
from lf_export.walk.stream import walk

DATA = random_data([40, 30, 50, 60, 20, 45, 38, 70] * 2)
FUSED = [{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("mixed") / "model")


def write(model: Path, out: Path, data: RandomData = DATA, **options: Any) -> dict[str, Any]:
    out.mkdir()
    checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, out, GptqOptions(**{"bits": 4.5, "group_size": 32} | options), data.digest)
    walk(checkpoint, data, [target], dtype=torch.float32)
    return target.finish()


@pytest.fixture(scope="module")
def artifact(model: Path) -> tuple[Path, dict[str, Any]]:
    out = model.parent / "gptq"
    return out, write(model, out)


def bits_on_disk(folder: Path) -> dict[str, int]:
    tensors = load_file(folder / "model.safetensors")
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    return {name: stored_bits(len(tensors[f"{name}.qweight"]), len(tensors[f"{name}.g_idx"])) for name in names}


def average(checkpoint: Checkpoint, bits: dict[str, int]) -> float:
    counts = {name: checkpoint.info(f"{name}.weight").numel for name in bits}
    return sum(counts[name] * each for name, each in bits.items()) / sum(counts.values())


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj", "model.layers.1.self_attn.o_proj"])
def test_a_fragile_linear_gets_the_higher_bits(name: str, tmp_path: Path, artifact: Any) -> None:
    """A weight in each group that is so large that the others round to nothing."""
    fragile = tiny_model(tmp_path / "fragile")
    tensors = load_file(fragile / "model.safetensors")
    tensors[f"{name}.weight"][:, ::16] *= 25
    save_file(tensors, fragile / "model.safetensors", {"format": "pt"})
    assert bits_on_disk(artifact[0])[name] == 4
    facts = write(fragile, tmp_path / "out")
    assert bits_on_disk(tmp_path / "out")[name] == 8
    assert facts["linears"][name]["why"].startswith("place 1 of 8")


@pytest.mark.parametrize(("bits", "widths"), [(2.3, {2, 4}), (3.5, {3, 4}), (4.5, {4, 8}), (6.75, {4, 8})])
def test_the_average_stays_below_the_target_and_nothing_more_would_fit(
    bits: float, widths: set[int], model: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(model)
    facts = write(model, tmp_path / "out", bits=bits)
    found = bits_on_disk(tmp_path / "out")
    assert set(found.values()) == widths
    assert average(checkpoint, found) <= bits
    assert facts["average_bits"] == pytest.approx(average(checkpoint, found), abs=1e-6)
    for index in range(2):
        for group in ({"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}):
            raised = {
                name: max(widths) if f".{index}." in name and name.rsplit(".", 1)[1] in group else each
                for name, each in found.items()
            }
            assert raised == found or average(checkpoint, raised) > bits
    options = GptqOptions(bits=bits, group_size=32)
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    size = len(data) - 8 - int.from_bytes(data[:8], "little")
    assert size <= FORMAT.size(checkpoint, options) < 1.1 * size


def test_linears_that_are_run_as_one_get_the_same_bits(artifact: tuple[Path, dict[str, Any]]) -> None:
    found = bits_on_disk(artifact[0])
    for index in range(2):
        for group in FUSED:
            same = {bits for name, bits in found.items() if f".{index}." in name and name.rsplit(".", 1)[1] in group}
            assert len(same) == 1
    dynamic = json.loads((artifact[0] / "quantize_config.json").read_text())["dynamic"]
    assert {each["bits"] for each in dynamic.values()} == {8}
    assert len([bits for bits in found.values() if bits == 8]) == len(
        [pattern for pattern in dynamic if "qkv" not in pattern and "gate_up" not in pattern]
    )


def test_the_manifest_says_bits_both_damages_and_why(artifact: tuple[Path, dict[str, Any]]) -> None:
    facts = artifact[1]
    assert (facts["scheme"], facts["options"]["bits"]) == ("W4.5A16", 4.5)
    assert {name: each["bits"] for name, each in facts["linears"].items()} == bits_on_disk(artifact[0])
    for linear in facts["linears"].values():
        assert 0 < linear["damage"]["8"] < linear["damage"]["4"] / 50
        assert ("within" in linear["why"]) == (linear["bits"] == 8)
    json.dumps(facts)


def test_overrides_win_over_the_choice(model: Path, tmp_path: Path, artifact: tuple[Path, dict[str, Any]]) -> None:
    best = next(name for name, each in artifact[1]["linears"].items() if each["why"].startswith("place 1 of"))
    overrides = {best: {"bits": 4}, "model.layers.1.mlp.gate_proj": {"bits": 8}, "*.1.*.o_proj": {"skip": True}}
    facts = write(model, tmp_path / "out", overrides=overrides, bits=4.9)
    found = bits_on_disk(tmp_path / "out")
    assert (found[best], found["model.layers.1.mlp.gate_proj"]) == (4, 8)
    assert "model.layers.1.self_attn.o_proj" not in found
    assert facts["linears"][best]["why"] == "override"
    assert average(open_checkpoint(model), found) <= 4.9
    with pytest.raises(InputError, match=r"fix makes an average of 5\.\d+ bits at the least, above bits: 4\.5"):
        write(model, tmp_path / "over", overrides={"*.mlp.gate_proj": {"bits": 8}, "*.mlp.up_proj": {"bits": 8}})
    with pytest.raises(InputError, match="fix every linear, nothing is left to choose"):
        write(model, tmp_path / "all", overrides={"*": {"bits": 4}})


def test_the_same_inputs_give_the_same_bytes_and_no_scratch(model: Path, tmp_path: Path) -> None:
    digests = []
    for run in ("a", "b"):
        facts = write(model, tmp_path / run)
        files = sorted(path for path in (tmp_path / run).rglob("*") if path.is_file())
        assert not any(".candidates" in str(path) for path in files)
        digests.append([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files] + [facts])
    assert digests[0] == digests[1]


def test_an_interruption_leaves_nothing_and_the_scratch_is_counted(model: Path, tmp_path: Path) -> None:
    checkpoint, options = open_checkpoint(model), GptqOptions(bits=4.5, group_size=32)
    seen: list[int] = []

    class Interrupted:
        needs_moments = True

        def layer(self, view: Any) -> None:
            if view.index == 1:
                (scratch,) = tmp_path.rglob(".candidates")
                seen.append(sum(path.stat().st_size for path in scratch.iterdir()))
                raise KeyboardInterrupt

    def interrupted() -> None:
        with staging(tmp_path / "out") as folder:
            target = FORMAT.open(checkpoint, folder, options, DATA.digest)
            walk(checkpoint, DATA, [target, Interrupted()])

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    plan = TargetPlan("mixed", "gptq", tmp_path, options.model_dump())
    recipe = Recipe.model_validate(
        {"name": "r", "base": {"path": "b"}, "adapters": ["a"], "output": "o", "quantize": {"g": {"format": "gptq"}}}
    )
    plain = TargetPlan("plain", "gptq", tmp_path, GptqOptions(group_size=32).model_dump())
    costs = [estimate.quantize(checkpoint, each, recipe, [each], 0).scratch for each in (plan, plain)]
    counted = costs[0] - costs[1]  # the activations are counted in both
    assert counted == FORMAT.scratch(checkpoint, options)
    assert counted < seen[0] < counted + 20_000  # and the header
    assert FORMAT.scratch(checkpoint, GptqOptions()) == 0


def test_no_rounding_is_kept_in_memory(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(model)
    target = FORMAT.open(checkpoint, tmp_path, GptqOptions(bits=4.5, group_size=32), "")
    alive: list[int] = []

    class Watched:
        needs_moments = True

        def layer(self, view: Any) -> None:
            target.layer(view)
            gc.collect()
            alive.append(sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor))

    walk(checkpoint, DATA, [Watched()], dtype=torch.float32)
    assert alive[1] <= alive[0]


def test_with_a_single_conversation_the_linears_own_error_is_the_damage(model: Path, tmp_path: Path) -> None:
    facts = write(model, tmp_path / "out", random_data([200]))
    linear = facts["linears"]["model.layers.0.self_attn.o_proj"]
    assert linear["error"] in linear["damage"].values()


def test_an_average_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    (plan,) = targets_from_names(["gptq:4.25"], tmp_path)
    assert (plan.name, plan.options["bits"]) == ("gptq-4.25bit", 4.25)
    assert targets_from_names(["gptq:4.0"], tmp_path)[0].name == "gptq-4bit"
    for name in ("gptq:four", "gptq:nan", "gptq:inf"):
        with pytest.raises(InputError, match="expected a number of bits after gptq:"):
            targets_from_names([name], tmp_path)
