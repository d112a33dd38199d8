"""Files that are split: where parts end, what each says, and that the first stands for the whole."""

from pathlib import Path
from typing import Any

import gguf_folders
import models
import numpy as np
import pytest

from lf_export.checkpoint.gguf_parts import first_part, is_later_part, parts_of
from lf_export.checkpoint.index import open_checkpoint
from lf_export.errors import InputError
from lf_export.formats import gguf_writer
from lf_export.formats.gguf import FORMAT, GgufOptions
from lf_export.runtimes import default_runtime
from lf_export.runtimes.llamacpp import accepts, open_session
from lf_export.steps.inspect import inspect_path
from lf_export.steps.measure import disk_bytes

PART_BYTES = 100_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_model(tmp_path_factory.mktemp("parts") / "m", tie_word_embeddings=False)


def write(model: Path, out: Path, scheme: str = "F16", **options: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    target = FORMAT.open(open_checkpoint(model), out, GgufOptions(types=(scheme,), **options), "abc")
    return target.finish()


@pytest.fixture(scope="module")
def split(model: Path) -> tuple[Path, dict[str, Any]]:
    out = model.parent / "split"
    return out, write(model, out, split_max_size=PART_BYTES)


@pytest.fixture(scope="module")
def whole(model: Path) -> Path:
    write(model, model.parent / "whole")
    return model.parent / "whole" / "m-F16.gguf"


def test_parts_have_the_tensors_of_the_whole_in_order(split: tuple[Path, dict[str, Any]], whole: Path) -> None:
    parts = sorted(split[0].iterdir())
    count = len(parts)
    assert count > 2
    assert [part.name for part in parts] == [f"m-F16-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    expected = gguf_folders.tensors_of(whole)
    found: dict[str, Any] = {}
    for part in parts:
        tensors = gguf_folders.tensors_of(part)
        assert sum(-(-data.nbytes // 32) * 32 for _, data in tensors.values()) <= PART_BYTES
        found |= tensors
    assert list(found) == list(expected)
    for name, (kind, data) in expected.items():
        assert found[name][0] == kind
        assert np.array_equal(found[name][1], data)


def test_the_first_part_has_the_metadata_and_each_says_where_it_belongs(
    split: tuple[Path, dict[str, Any]], whole: Path
) -> None:
    parts = sorted(split[0].iterdir())
    keys = {"split.no", "split.count", "split.tensors.count"}
    for number, part in enumerate(parts):
        fields = gguf_folders.fields_of(part)
        assert (fields["split.no"], fields["split.count"]) == (number, len(parts))
        assert fields["split.tensors.count"] == len(gguf_folders.tensors_of(whole))
        own = {name for name in fields if not name.startswith("GGUF.")}
        assert (own - keys == set()) is (number > 0)
    first, expected = gguf_folders.fields_of(parts[0]), gguf_folders.fields_of(whole)
    assert {name: first[name] for name in expected if "GGUF." not in name} == {
        name: value for name, value in expected.items() if "GGUF." not in name
    }


def test_a_part_ends_where_the_next_tensor_would_go_beyond_the_size(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path, split_max_size=1)
    parts = sorted(tmp_path.iterdir())
    assert [len(gguf_folders.tensors_of(part)) for part in parts] == [1] * len(parts)
    assert len(parts) == 2 + 2 * 9 + 1


def test_a_file_that_fits_is_not_split(model: Path, whole: Path, tmp_path: Path) -> None:
    facts = write(model, tmp_path, split_max_size=10**9)
    assert (tmp_path / "m-F16.gguf").read_bytes() == whole.read_bytes()
    assert "parts" not in facts["files"]["m-F16.gguf"]


def test_the_manifest_names_the_parts(split: tuple[Path, dict[str, Any]]) -> None:
    parts = sorted(split[0].iterdir())
    (name, facts) = next(iter(split[1]["files"].items()))
    assert name == parts[0].name
    assert facts["parts"] == [part.name for part in parts]
    assert facts["bytes"] == sum(part.stat().st_size for part in parts)


def test_llama_cpp_gives_the_logits_of_the_whole_bit_for_bit(split: tuple[Path, dict[str, Any]], whole: Path) -> None:
    assert accepts(split[0])
    assert default_runtime(split[0]) == "llamacpp"
    ids, logits = list(range(3, 60)), []
    for path in (split[0], min(split[0].iterdir()), whole):
        session = open_session(path, threads=1)
        logits.append(session.score([], [ids], [1])[0])
        session.close()
    assert np.array_equal(logits[0], logits[2])
    assert np.array_equal(logits[1], logits[2])


def test_a_later_part_alone_and_a_part_that_is_gone_are_refused(model: Path, tmp_path: Path) -> None:
    write(model, tmp_path, split_max_size=PART_BYTES)
    parts = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="a later part of a file") as caught:
        open_session(parts[1], threads=1)
    assert caught.value.hint == f"name the first: {parts[0].name}"
    parts[-1].unlink()
    with pytest.raises(InputError, match=r"llama\.cpp cannot load it"):
        open_session(tmp_path, threads=1)
    with pytest.raises(InputError, match=f"{parts[-1].name}: a part of {parts[0].name} is missing"):
        inspect_path(tmp_path)


def test_inspect_and_bench_count_every_part(split: tuple[Path, dict[str, Any]], whole: Path) -> None:
    first = min(split[0].iterdir())
    found, expected = inspect_path(first), inspect_path(whole)
    assert {key: value for key, value in found.items() if key not in {"path", "bytes"}} == {
        key: value for key, value in expected.items() if key not in {"path", "bytes"}
    }
    assert inspect_path(split[0])["tensors"] == expected["tensors"]
    total = sum(part.stat().st_size for part in split[0].iterdir())
    assert found["bytes"] == disk_bytes(first) == disk_bytes(split[0]) == total


def test_more_parts_than_a_header_can_say_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_writer, "MOST_PARTS", 3)
    with pytest.raises(InputError, match="21 parts, expected 3 at the most"):
        FORMAT.size(open_checkpoint(model), GgufOptions(types=("F16",), split_max_size=1))


def test_a_target_goes_on_in_the_part_where_it_was(tmp_path: Path) -> None:
    folder = gguf_folders.arithmetic_folder(tmp_path / "m", "fallback")
    checkpoint = open_checkpoint(folder)
    options = GgufOptions(types=("Q8_0",), split_max_size=PART_BYTES)
    views = gguf_folders.layer_views(checkpoint)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    target = FORMAT.open(checkpoint, tmp_path / "whole", options, "abc")
    for view in views:
        target.layer(view)
    target.finish()
    killed = FORMAT.open(checkpoint, tmp_path / "killed", options, "abc")
    for view in views[:4]:
        killed.layer(view)
    snapshot = killed.snapshot()
    sizes = {path: path.stat().st_size for path in (tmp_path / "killed").iterdir()}
    killed.layer(views[4])
    for path, size in sizes.items():
        with path.open("ab") as file:
            file.truncate(size)
    again = FORMAT.open(checkpoint, tmp_path / "killed", options, "abc")
    again.restore(snapshot)
    for view in views[4:]:
        again.layer(view)
    again.finish()
    parts = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(parts) > 3
    assert parts == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in parts:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_names_of_parts_are_told_from_other_names() -> None:
    later, other = Path("a/m-Q4_0-00002-of-00003.gguf"), Path("a/m-of-00003.gguf")
    assert is_later_part(later)
    assert not is_later_part(other)
    assert first_part(later) == Path("a/m-Q4_0-00001-of-00003.gguf")
    assert parts_of(first_part(later))[1] == later
    assert first_part(other) == other
    assert parts_of(other) == [other]
