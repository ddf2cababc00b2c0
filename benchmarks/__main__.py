"""`python -m benchmarks [--backend NAME ...] [--json FILE]`: measure, print a table, write a file."""

import argparse
import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.rows import measure


def _machine() -> str:
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def _line(backend: str, row: Row) -> str:
    verdict = "" if row.reach is None else f"{row.reach:g} {'✓' if row.ratio <= row.reach else '✗'}"
    return (
        f"| {row.what} | {backend} | {row.shown(row.measured)} "
        f"| {row.floor}, {row.shown(row.floor_measured)} | {row.ratio:.2f} | {verdict} |"
    )


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--backend", action="append", choices=["docker", "bubblewrap"])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"))
    options = parser.parse_args()
    measured: dict[str, list[dict[str, object]]] = {}
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}\n")
    print("| what | backend | median | floor | ratio | reach |\n|---|---|---|---|---|---|")
    for backend in options.backend or ["docker", "bubblewrap"]:
        measured[backend] = []
        for row in measure(backend):
            measured[backend].append({**asdict(row), "ratio": row.ratio})
            print(_line(backend, row), flush=True)
    report = {"date": datetime.now(UTC).isoformat(), "machine": _machine(), "rows": measured}
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
