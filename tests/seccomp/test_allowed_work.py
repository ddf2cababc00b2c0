"""What a sandbox must still do, tried in a real container and in a real bubblewrap sandbox."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def names_of_checks() -> list[str]:
    """Ask the probe which checks it has."""
    spec = importlib.util.spec_from_file_location("probe_work", Path(__file__).with_name("probe_work.py"))
    assert spec is not None and spec.loader is not None
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    return list(probe.CHECKS)


NAMES = names_of_checks()


@pytest.fixture(scope="module")
def outcomes(run_probe: Any) -> dict[str, str]:
    """Try all of them in one sandbox."""
    result: dict[str, str] = run_probe("probe_work.py", NAMES)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_allowed(name: str, outcomes: dict[str, str]) -> None:
    """The work is done as if there were no filter."""
    assert outcomes[name] == "ok", outcomes[name]
