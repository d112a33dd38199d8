"""Energy is read from the kernel's counters, through their wrap-around, and said to be missing where it is."""

import errno
from pathlib import Path
from typing import Any

import pytest

from lf_export.metrics.energy import EnergyMeter

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, microjoules: int) -> Path:
    place = root / folder
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


def test_packages_and_their_memory_count_and_what_they_hold_does_not(tmp_path: Path) -> None:
    counters = [
        zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000),
        zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000),
        zone(tmp_path, "intel-rapl:0:1", "dram", 0),
    ]
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    meter = EnergyMeter(tmp_path)
    assert meter.state == "measured"
    before = meter.read()
    for counter in [*counters, *others]:
        counter.write_text(str(int(counter.read_text()) + 500_000))
    assert meter.joules(before, meter.read()) == pytest.approx(1.5)


def test_a_counter_that_began_again_is_counted_through(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.write_text("2000000")
    assert meter.joules(before, meter.read()) == pytest.approx(3.0)


def test_no_counters_are_not_available(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        meter = EnergyMeter(root)
        assert (meter.state, meter.read(), meter.joules({}, {})) == ("not available", {}, None)


def test_counters_of_root_alone_are_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    read = Path.read_text

    def refused(path: Path, *arguments: Any, **more: Any) -> str:
        if path.name == "energy_uj":  # mode 0400 since 2020; the tests may run as root, whom no mode stops
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", refused)
    meter = EnergyMeter(tmp_path)
    assert (meter.state, meter.read()) == ("not readable", {})


def test_a_counter_that_goes_away_gives_no_energy(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.unlink()
    assert meter.joules(before, meter.read()) is None
