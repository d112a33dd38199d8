"""Energy from the processor's own counters (RAPL), as the kernel shows them below /sys/class/powercap.

A counter belongs to the machine and not to a process: what else runs is in it, and what the machine takes idle.
Sources: https://docs.kernel.org/power/powercap/powercap.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path("/sys/class/powercap")

State = Literal["measured", "not readable", "not available"]


@dataclass(frozen=True)
class _Zone:
    counter: Path
    range: int


class EnergyMeter:
    """The sum of the packages' counters, and of their memory's where it has one that the package does not hold.

    Args:
        root: the folder of the kernel's zones.

    Attributes:
        state: `measured`; `not readable` where the kernel has counters that this user may not read; `not available`
            where it has none.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.state: State = "not available"
        self._zones: list[_Zone] = []
        for counter in sorted(root.glob("intel-rapl*/energy_uj")):
            try:
                name = (counter.parent / "name").read_text(encoding="ascii").strip()
                if not name.startswith(("package", "dram")) or counter.parent.name.startswith("intel-rapl-mmio"):
                    continue  # cores and the graphics are in the package, the platform holds it; mmio shows it again
                counter.read_text(encoding="ascii")
                most = int((counter.parent / "max_energy_range_uj").read_text(encoding="ascii"))
            except PermissionError:
                self.state, self._zones = "not readable", []
                return
            except (OSError, ValueError):
                continue
            self._zones.append(_Zone(counter, most))
        if self._zones:
            self.state = "measured"

    def read(self) -> dict[Path, int]:
        """The counters now, in microjoules; nothing where they cannot be read any more."""
        try:
            return {zone.counter: int(zone.counter.read_text(encoding="ascii")) for zone in self._zones}
        except (OSError, ValueError):
            return {}

    def joules(self, before: Mapping[Path, int], after: Mapping[Path, int]) -> float | None:
        """What was used between two readings, None where one is missing.

        A counter that is lower than before has begun again at 0 after its range: once, since that takes minutes.
        """
        if not self._zones or not before or not after:
            return None
        used = 0
        for zone in self._zones:
            more = after[zone.counter] - before[zone.counter]
            used += more if more >= 0 else more + zone.range
        return used / 1e6
