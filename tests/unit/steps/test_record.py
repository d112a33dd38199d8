"""A finished step is known by its record; whatever changed makes it run again."""

from pathlib import Path

import pytest

from lf_export.steps.record import claim, fingerprint, is_done, is_ours, record, step_digest


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "merged"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"1234")
    (folder / "sub" / "b.bin").write_bytes(b"5")
    return folder


def test_a_recorded_step_is_done(output: Path) -> None:
    assert not is_done(output, "d")
    assert not is_ours(output)
    record(output, "d")
    assert is_done(output, "d")
    assert is_ours(output)


def test_another_digest_is_not_done(output: Path) -> None:
    record(output, "d")
    assert not is_done(output, "e")


@pytest.mark.parametrize("change", ["content", "missing", "extra", "gone"])
def test_an_output_that_was_changed_is_not_done(output: Path, change: str) -> None:
    record(output, "d")
    if change == "content":
        (output / "a.bin").write_bytes(b"12345")
    elif change == "missing":
        (output / "a.bin").unlink()
    elif change == "extra":
        (output / "c.bin").write_bytes(b"")
    else:
        output.rename(output.with_name("elsewhere"))
    assert not is_done(output, "d")


def test_a_card_may_be_written_anew_and_edited(output: Path) -> None:
    record(output, "d")
    (output / "README.md").write_text("results", encoding="utf-8")
    assert is_done(output, "d")
    record(output, "d")
    (output / "README.md").unlink()
    assert is_done(output, "d")
    (output / "sub" / "README.md").write_text("another", encoding="utf-8")
    assert not is_done(output, "d")


def test_a_broken_record_is_no_record(output: Path) -> None:
    record(output, "d")
    (output.parent / "merged.step.json").write_text("{", encoding="utf-8")
    assert not is_done(output, "d")


def test_hidden_files_do_not_count(output: Path) -> None:
    before = fingerprint(output)
    (output / ".staging").write_bytes(b"x")
    assert fingerprint(output) == before


def test_a_digest_depends_on_every_part() -> None:
    digests = {
        step_digest("merge", {}, []),
        step_digest("quantize", {}, []),
        step_digest("merge", {"dtype": "float16"}, []),
        step_digest("merge", {}, ["x"]),
    }
    assert len(digests) == 4


def test_a_claimed_output_is_ours_but_not_done(output: Path) -> None:
    claim(output, "d")
    assert is_ours(output)
    assert not is_done(output, "d")
