"""Timing: medians of many runs, because machines are shared and noisy."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was done.
        measured: Its median time in seconds, for a rate per piece; or bytes of memory.
        floor: What it is compared with.
        floor_measured: The same of that, measured in the same run.
        reach: The highest ratio that is aimed at; None when it is only reported.
        unit: In which both are shown, ``ms`` or ``MB``.
    """

    what: str
    measured: float
    floor: str
    floor_measured: float
    reach: float | None = None
    unit: Literal["ms", "MB"] = "ms"

    @property
    def ratio(self) -> float:
        """How many times the floor it takes."""
        return self.measured / self.floor_measured

    def shown(self, value: float) -> str:
        """A time or a size as the table has it."""
        return f"{value * 1e3:.2f} ms" if self.unit == "ms" else f"{value / 1e6:.1f} MB"


def median_seconds(work: Callable[[], object], runs: int, warm_up: int = 3) -> float:
    """Median time of one call."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def once(work: Callable[[], object]) -> float:
    """Time of a single call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory_of(processes: Iterable[int]) -> int:
    """Bytes of memory that processes take up, what they share with others counted in proportion."""
    total = 0
    for pid in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def family_of(pid: int) -> list[int]:
    """A process and all that it and its children have started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family_of(int(child))
    return found
