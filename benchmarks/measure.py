"""Timing: medians of many runs, because machines are shared and noisy."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was done.
        seconds: Its median time; for a rate, seconds per piece.
        floor: What it is compared with.
        floor_seconds: The median time of that, measured in the same run.
        reach: The highest ratio that is aimed at; None when it is only reported.
    """

    what: str
    seconds: float
    floor: str
    floor_seconds: float
    reach: float | None = None

    @property
    def ratio(self) -> float:
        """How many times the floor it takes."""
        return self.seconds / self.floor_seconds


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
