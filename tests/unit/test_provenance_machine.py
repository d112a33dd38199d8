"""What is said of the machine that ran."""

from pathlib import Path

import pytest

from lf_export import provenance

X86 = """processor\t: 0
model name\t: A Processor @ 2 GHz
flags\t\t: fpu sse2 fma avx avx2 hypervisor avx512_bf16

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is read in the place of the system's."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(provenance, "_CPUINFO", path)
    return path


def test_the_first_processors_name_and_its_vector_instructions_are_said(cpuinfo: Path) -> None:
    cpuinfo.write_text(X86, encoding="utf-8")
    said = provenance.machine()
    assert said["processor"] == "A Processor @ 2 GHz"
    assert said["instruction_sets"] == ["avx", "fma", "avx2", "avx512_bf16"]


def test_arm_calls_them_features(cpuinfo: Path) -> None:
    cpuinfo.write_text(ARM, encoding="utf-8")
    assert provenance.machine()["instruction_sets"] == ["asimd", "asimddp", "i8mm"]


def test_a_system_that_does_not_say_leaves_them_open(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    said = provenance.machine()
    assert said["instruction_sets"] == []
    assert said["processor"]
