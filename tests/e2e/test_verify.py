"""What was made can be checked: a changed byte anywhere is named, a signature holds, and nothing tells of its maker."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from models import tiny_adapter, tiny_model

from lf_export import cli
from lf_export.checkpoint.digests import folder_facts
from lf_export.checkpoint.regions import regions_of
from lf_export.provenance import read_manifest, write_manifest
from lf_export.steps.verify import verify_folder

Run = Callable[..., Any]

USER = "zaphod-beeblebrox"
KEY = "sk-telling-0123456789abcdef"
TELLING = "the quarterly figures of Magrathea"
FORMATS = {
    "gptq": {"format": "gptq", "bits": 4, "group_size": 32},
    "awq": {"format": "awq", "group_size": 32},
    "gguf": {"format": "gguf", "type": "Q8_0", "method": "rtn"},
    "gguf-gptq": {"format": "gguf", "type": "Q4_0"},
    "onnx": {"format": "onnx", "precision": "int4", "group_size": 32},
}


def _telling(project: Path, home: Path) -> Path:
    """A project in the user's home, whose model, adapter and data say whose they are."""
    base = tiny_model(home / "base", max_position_embeddings=2048, shard_size="200KB")
    tiny_adapter(home / "adapter", base)
    (home / "adapter" / "LICENSE").write_text("the adapter's licence\n", encoding="utf-8")
    for name, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        config = json.loads((base / name).read_text(encoding="utf-8"))
        (base / name).write_text(json.dumps({**config, key: str(base)}), encoding="utf-8")
    for file in project.glob("*.jsonl"):
        text = file.read_text(encoding="utf-8")
        if not file.name.startswith("suite"):
            text = text.replace("it is sunny", f"{TELLING}, it is sunny")
        (home / file.name).write_text(text, encoding="utf-8")
    assert TELLING in (home / "chat.jsonl").read_text(encoding="utf-8")
    recipe = {
        "name": "tiny",
        "base": {"path": "base"},
        "adapters": ["adapter"],
        "output": str(home / "run"),
        "threads": 1,
        "calibration": {"calls": ["calls.jsonl"], "chat": ["chat.jsonl"], "num_samples": 12},
        "quantize": FORMATS,
        "bench": {
            "calls": {"path": "suite-calls.jsonl", "limit": 1},
            "no_call": {"path": "suite-no-call.jsonl", "limit": 1},
            "chat": {"path": "suite-chat.jsonl", "limit": 1},
            "max_new_tokens": 8,
            "fidelity_items": 1,
            "latency_prompts": 1,
            "latency_tokens": 2,
        },
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def made(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in every format, made by someone whose name, home and key must not get out; nobody changes it."""
    home = _telling(project, tmp_path_factory.mktemp("home") / USER)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HOME": home,
            "USER": USER,
            "LOGNAME": USER,
            "OPENAI_API_KEY": KEY,
            "HF_TOKEN": KEY,
        }.items():
            patch.setenv(name, str(value))
        patch.setenv("LF_EXPORT_THREADS", "1")
        patch.setattr("sys.argv", ["lf-export", "run", str(home / "recipe.yaml")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 11
    return home / "run"


def test_a_whole_run_verifies(lf_export: Run, made: Path) -> None:
    ended = lf_export("verify", made, "--json")
    assert ended.status == 0, ended.err
    results = {Path(each["path"]).name: each for each in json.loads(ended.out)["results"]}
    assert set(results) == {"merged", "calibration", "bench", *FORMATS}
    assert all(results[name]["inputs"] == ["calibration", "model"] for name in FORMATS)
    assert set(results["bench"]["inputs"]) == set(FORMATS)
    assert not any(each["problems"] or each["notes"] for each in results.values())


def test_nothing_tells_who_made_it(made: Path) -> None:
    told = {"user": USER, "home": str(made.parent), "key": KEY, "calibration text": TELLING}
    found = [
        f"{file.relative_to(made)}: {what}"
        for file in sorted(made.rglob("*"))
        if file.is_file()
        for what, text in told.items()
        if text.encode() in file.read_bytes() or text.encode("utf-16-le") in file.read_bytes()
    ]
    assert not found


def _flip(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ 0x01]))


@pytest.mark.parametrize("name", ["merged", "calibration", "bench", *FORMATS])
def test_a_changed_byte_is_named_wherever_it_is(made: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(made / name, tmp_path / name)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert len(files) >= 3
    for file in files:
        size = file.stat().st_size
        starts = [region.start for region in regions_of(file)] if file.suffix in {".gguf", ".safetensors"} else []
        for at in {0, 9, size // 3, size // 2, size - 1, *(start + 1 for start in starts[1::7])}:
            _flip(file, min(at, size - 1))
            found = {problem.file for problem in verify_folder(folder).problems}
            assert str(file) in found, (file.name, at)
            assert file.name == "lf-export.json" or found == {str(file)}
            _flip(file, min(at, size - 1))
    assert verify_folder(folder).problems == []


@pytest.mark.parametrize(("name", "file"), [("gptq", "model.safetensors"), ("gguf-gptq", "tiny-Q4_0.gguf")])
def test_damage_in_weights_is_told_by_the_tensor(
    lf_export: Run, made: Path, tmp_path: Path, name: str, file: str
) -> None:
    folder = shutil.copytree(made / name, tmp_path / name)
    header, *tensors = regions_of(folder / file)
    _flip(folder / file, tensors[3].start)
    _flip(folder / file, tensors[5].stop - 1)
    ended = lf_export("verify", folder)
    assert ended.status == 3
    assert f"{folder / file}: changed: in tensors {tensors[3].name}, {tensors[5].name}\n" in ended.err
    _flip(folder / file, header.stop - 40)
    assert f"changed: in its header (the first {header.stop:,} bytes)" in lf_export("verify", folder).err
    with (folder / file).open("r+b") as opened:
        opened.truncate(header.stop + 5)
    assert f"{header.stop + 5:,} bytes, " in lf_export("verify", folder).err


def test_what_is_missing_more_or_a_link_is_named(lf_export: Run, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "gptq", tmp_path / "gptq")
    (folder / "LICENSE").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / ".hidden").write_bytes(b"x")
    (folder / "config.json").rename(tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    (folder / "more").symlink_to(tmp_path)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    ended = lf_export("verify", folder, "--json")
    assert ended.status == 3
    (result,) = json.loads(ended.out)["results"]
    assert {(Path(each["file"]).name, each["kind"]) for each in result["problems"]} == {
        ("LICENSE", "missing"),
        ("pytorch_model.bin", "additional"),
        (".hidden", "additional"),
        ("config.json", "link"),
        ("more", "link"),
    }
    assert result["notes"] == [".gitattributes: not covered by the manifest, nor by a signature"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "manifest: not JSON"),
        (lambda _: "[1]", "manifest: a JSON object was expected"),
        (lambda _: "[" * 100_000, "manifest: not JSON"),
        (lambda text: text.replace('"schema": 2', '"schema": 1'), "schema 1, 2 was expected"),
        (
            lambda text: text.replace('"LICENSE":', '"../LICENSE":'),
            "'../LICENSE' would lie outside the folder",
        ),
        (lambda text: text.replace('"LICENSE":', '"/etc/passwd":'), "'/etc/passwd' would lie outside"),
        (lambda text: text.replace('"files": {', '"files": {"x": 1, '), "no size and sha256 of 'x'"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "changed: its own digest is another"),
        (lambda text: text + "\n", "changed: its own digest is another"),
    ],
)
def test_a_damaged_manifest_is_named(
    lf_export: Run, made: Path, tmp_path: Path, damage: Callable[[str], str], said: str
) -> None:
    folder = shutil.copytree(made / "gptq", tmp_path / "gptq")
    file = folder / "lf-export.json"
    text = file.read_text(encoding="utf-8")
    assert damage(text) != text
    file.write_text(damage(text), encoding="utf-8")
    ended = lf_export("verify", folder)
    assert ended.status == 3
    assert f"{file}: " in ended.err
    assert said in ended.err


def _reseal(folder: Path) -> None:
    """What someone does who changes a file and makes the manifest fit."""
    made = read_manifest(folder)
    assert made is not None
    files = folder_facts(folder)
    write_manifest(folder, {**made, "files": {name: files[name] for name in made["files"]}})


def test_an_artifact_of_another_model_or_another_calibration_is_named(
    lf_export: Run, made: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    _flip(run / "merged" / "tokenizer.json", 100)
    _flip(run / "calibration" / "tokens.npz", 100)
    for name in ("merged", "calibration"):
        _reseal(run / name)
        assert lf_export("verify", run / name).status == 0
    ended = lf_export("verify", run)
    assert ended.status == 3
    assert (
        f"{run / 'merged' / 'tokenizer.json'}: input: not the file that {run / 'awq'} was made of (model)" in ended.err
    )
    assert f"{run / 'calibration' / 'tokens.npz'}: input: not the file that {run / 'awq'} was made of" in ended.err
    _reseal(run / "gguf")
    made_again = read_manifest(run / "gguf")
    assert made_again is not None
    write_manifest(run / "gguf", {**made_again, "options": {}})
    assert f"{run / 'gguf' / 'lf-export.json'}: input: the manifest is not that of the artifact" in (
        lf_export("verify", run).err
    )


def test_inputs_are_compared_where_they_are_given(lf_export: Run, made: Path, tmp_path: Path) -> None:
    home = made.parent
    given = ("--inputs", home / "base", "--inputs", home / "adapter")
    ended = lf_export("verify", made / "merged", *given, "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["results"][0]["inputs"] == ["base", "adapter 1"]
    assert lf_export("verify", made / "calibration", "--inputs", home / "calls.jsonl").status == 0
    other = shutil.copytree(home / "adapter", tmp_path / "adapter")
    _flip(other / "adapter_model.safetensors", 3000)
    ended = lf_export("verify", made / "merged", "--inputs", other)
    assert ended.status == 3
    assert f"{other / 'adapter_model.safetensors'}: input: not the file" in ended.err
    ended = lf_export("verify", made / "gptq", "--inputs", other)
    assert "the input of nothing that was checked" in ended.err
    assert lf_export("verify", made / "gptq", "--inputs", tmp_path / "none").status == 3


def test_every_tensor_of_every_format_is_the_models(lf_export: Run, made: Path) -> None:
    ended = lf_export("verify", made, "--deep", "--sample", "1000", "--json")
    assert ended.status == 0, ended.err
    notes = {each["kind"]: each["notes"] for each in json.loads(ended.out)["results"] if each["notes"]}
    assert set(notes) == {"gptq", "awq", "gguf", "onnx"}
    assert any("20 of 20 tensors" in note for note in notes["gptq"])
    assert lf_export("verify", made / "gptq", "--deep").status == 3  # without its model
    assert lf_export("verify", made / "gptq", "--deep", "--model", made / "merged").status == 0


def _swap(file: Path, one: tuple[int, int], other: tuple[int, int]) -> None:
    data = bytearray(file.read_bytes())
    first, second = data[slice(*one)], data[slice(*other)]
    assert len(first) == len(second)
    data[slice(*one)], data[slice(*other)] = second, first
    file.write_bytes(data)


def _swap_regions(file: Path, one: str, other: str) -> None:
    regions = {region.name: (region.start, region.stop) for region in regions_of(file)}
    _swap(file, regions[one], regions[other])


def _swap_onnx(graph: Path) -> None:
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    found = {}
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if "down_proj" in tensor.name and int(place.get("length", 0)) == 64 * 128 // 2:
            start = int(place["offset"])
            found[tensor.name] = (start, start + int(place["length"]))
    one, other = sorted(found)[:2]
    _swap(graph.with_name("model.onnx.data"), found[one], found[other])


@pytest.mark.parametrize("name", FORMATS)
def test_a_tensor_in_another_ones_place_is_found_although_every_digest_fits(
    lf_export: Run, made: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(made / name, tmp_path / name)
    if name == "onnx":
        _swap_onnx(folder / "model.onnx")
        said = "model.layers.0.mlp.down_proj"
    elif name.startswith("gguf"):
        _swap_regions(next(folder.glob("tiny-*.gguf")), "blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
        said = "blk.0.ffn_down.weight"
    else:
        down = "model.layers.{}.mlp.down_proj.qweight"
        _swap_regions(folder / "model.safetensors", down.format(0), down.format(1))
        said = "model.layers.0.mlp.down_proj.weight"
    _reseal(folder)
    assert lf_export("verify", folder).status == 0
    ended = lf_export("verify", folder, "--deep", "--sample", "1000", "--model", made / "merged")
    assert ended.status == 3
    assert f"weights: {said}: is " in ended.err


def test_a_changed_norm_is_found_by_the_bit(lf_export: Run, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "gptq", tmp_path / "gptq")
    (norm,) = (each for each in regions_of(folder / "model.safetensors") if each.name == "model.norm.weight")
    _flip(folder / "model.safetensors", norm.start)
    _reseal(folder)
    ended = lf_export("verify", folder, "--deep", "--sample", "1000", "--model", made / "merged")
    assert ended.status == 3
    assert "weights: model.norm.weight: is not the model's to the bit" in ended.err


def test_nothing_of_ours_is_said_so(lf_export: Run, tmp_path: Path) -> None:
    assert "nothing is there" in lf_export("verify", tmp_path / "none").err
    ended = lf_export("verify", tmp_path)
    assert ended.status == 3
    assert "no lf-export.json in it and in no folder of it" in ended.err


def test_a_bill_of_materials_is_valid_the_same_twice_and_sealed(lf_export: Run, made: Path, tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    run = shutil.copytree(made, tmp_path / "run")
    artifacts = [run / name for name in FORMATS]
    texts = []
    for _ in range(2):
        ended = lf_export("bom", *artifacts, "--report", run / "bench")
        assert ended.status == 0, ended.err
        texts.append([(folder / "bom.cdx.json").read_text(encoding="utf-8") for folder in artifacts])
    assert texts[0] == texts[1]
    assert lf_export("bom", run / "merged").status == 0
    for folder in (*artifacts, run / "merged"):
        text = (folder / "bom.cdx.json").read_text(encoding="utf-8")
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        assert str(made.parent) not in text
    facts = json.loads(texts[0][0])
    model = facts["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    weights = next(each for each in model["components"] if each["name"] == "model.safetensors")
    manifest = read_manifest(run / "gptq")
    assert manifest is not None
    assert weights["hashes"] == [{"alg": "SHA-256", "content": manifest["files"]["model.safetensors"]["sha256"]}]
    ancestors = model["pedigree"]["ancestors"]
    assert {each["bom-ref"] for each in ancestors} == {"base", "adapter 1", "merged"}
    assert all(each["components"] for each in ancestors)
    (data,) = facts["components"]
    assert data["properties"][0]["value"] == manifest["calibration"]["digest"]
    assert {"lf-export", "torch"} <= {each["name"] for each in facts["metadata"]["tools"]["components"]}
    metrics = {each["type"]: each for each in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["lf-export gate"]["value"] == "INCONCLUSIVE"
    assert lf_export("verify", run).status == 0
    size = (run / "gptq" / "bom.cdx.json").stat().st_size
    for at in (0, 30, size // 3, size // 2, size - 1):
        _flip(run / "gptq" / "bom.cdx.json", at)
        assert "bom.cdx.json: changed: not as lf-export wrote it" in lf_export("verify", run / "gptq").err
        _flip(run / "gptq" / "bom.cdx.json", at)
    other = shutil.copytree(run / "gguf", run / "elsewhere")
    assert "is not about the artifact 'elsewhere'" in lf_export("bom", other, "--report", run / "bench").err
    assert lf_export("bom", run / "calibration").status == 3
