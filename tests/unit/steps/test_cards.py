"""What a card inherits, and what a bench does to the card in an artifact's folder."""

from pathlib import Path

import pytest
from flipped_report import flipped_report
from said import Said

from lf_export import progress
from lf_export.provenance import manifest, write_manifest
from lf_export.report import write_report
from lf_export.report.card import artifact_card
from lf_export.steps.bench import earlier_bench
from lf_export.steps.cards import inherited, origin, write_results

REPORT = flipped_report()


def card_of(folder: Path, text: str, *others: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(text, encoding="utf-8")
    for name in others:
        (folder / name).write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "q8_0"
    folder.mkdir()
    made = manifest("gguf", options={"type": "Q8_0"}, calibration={"digest": "ab"}, files={"model.gguf": {}}, card={})
    write_manifest(folder, made)
    (folder / "README.md").write_text(artifact_card("q8_0", made), encoding="utf-8")
    return folder


def test_the_base_speaks_first_then_the_adapter_and_the_rest_is_left(tmp_path: Path) -> None:
    base = card_of(tmp_path / "base", "---\nlanguage: [en, fr]\ntags: [x]\nbase_model: other/one\n---\n# Base\n")
    adapter = card_of(tmp_path / "adapter", "---\nlanguage: de\nlicense: mit\n---\n")
    assert inherited([base, adapter], ["org/base-1.5", "None"]) == {
        "language": ["en", "fr"],
        "license": "mit",
        "base_model": "org/base-1.5",
    }


@pytest.mark.parametrize("name", ["None", "/home/x/base", "../base", "base", "a/b/c", "C:\\x/base", ""])
def test_a_base_that_is_a_folder_is_not_named(tmp_path: Path, name: str) -> None:
    assert inherited([tmp_path], [name]) == {}


def test_a_name_that_is_a_folder_here_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert inherited([tmp_path], ["runs/base"]) == {}
    assert inherited([tmp_path], ["runs/other"]) == {"base_model": "runs/other"}


@pytest.mark.parametrize(
    "text", ["# no metadata", "---\n[1, 2]\n---\n", "---\n: : :\n---\n", "---\nlanguage: 3\n---\n", "\xff"]
)
def test_metadata_that_does_not_read_is_none(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "README.md").write_bytes(text.encode("latin-1"))
    assert inherited([folder], []) == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\n    Apache License\n   Version 2.0, January 2004", {"license": "apache-2.0"}),
        ("MIT License\n\nCopyright", {"license": "mit"}),
        ("LLAMA 2 COMMUNITY LICENSE AGREEMENT", {"license": "llama2"}),
        ("All rights reserved", {"license": "other", "license_name": "see-file", "license_link": "LICENSE"}),
    ],
)
def test_the_licence_is_known_by_its_file(tmp_path: Path, text: str, found: dict[str, str]) -> None:
    (tmp_path / "LICENSE").write_text(text, encoding="utf-8")
    assert origin(tmp_path, None) == found
    assert origin(tmp_path, {"card": {"license": "gemma"}}) == {"license": "gemma"}


def test_the_results_go_into_the_card_once(artifact: Path) -> None:
    write_results(artifact, REPORT.artifacts[0], REPORT)
    card = artifact / "README.md"
    written, time = card.read_text(encoding="utf-8"), card.stat().st_mtime_ns
    assert "**PASS** against merged" in written
    write_results(artifact, REPORT.artifacts[0], REPORT)
    assert card.stat().st_mtime_ns == time
    assert sorted(path.name for path in artifact.iterdir()) == ["README.md", "lf-export.json"]
    write_results(artifact / "README.md", REPORT.artifacts[2], REPORT)  # a file in the folder, such as a GGUF
    assert "**FAIL** against merged" in card.read_text(encoding="utf-8")


def test_a_card_that_someone_edited_stays(artifact: Path) -> None:
    card = artifact / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("# q8_0", "# Our release"), encoding="utf-8")
    before, said = card.read_bytes(), Said()
    with progress.reporting(said):
        write_results(artifact, REPORT.artifacts[0], REPORT)
    assert card.read_bytes() == before
    assert said.lines == [f"{card}: was edited, and stays as it is"]


def test_a_folder_that_is_no_artifact_of_ours_is_left_alone(tmp_path: Path) -> None:
    folder = card_of(tmp_path / "theirs", "# theirs\n")
    write_results(folder, REPORT.artifacts[0], REPORT)
    assert (folder / "README.md").read_text(encoding="utf-8") == "# theirs\n"
    merged = tmp_path / "merged"
    merged.mkdir()
    write_manifest(merged, manifest("merged"))
    write_results(merged, REPORT.artifacts[0], REPORT)
    assert [path.name for path in merged.iterdir()] == ["lf-export.json"]


def test_an_artifact_that_was_made_again_gets_the_results_of_the_bench_that_still_holds(
    artifact: Path, tmp_path: Path
) -> None:
    write_report(REPORT, tmp_path / "bench")
    assert earlier_bench({"q8_0": artifact}, tmp_path / "bench").status == 10
    assert "**PASS** against merged" in (artifact / "README.md").read_text(encoding="utf-8")
