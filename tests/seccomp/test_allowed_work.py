"""What a sandbox must still do, tried in a real container and in a real bubblewrap sandbox."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.seccomp.conftest import run_in_bubblewrap


def names_of_checks() -> list[str]:
    """Ask the probe which checks it has."""
    spec = importlib.util.spec_from_file_location("probe_work", Path(__file__).with_name("probe_work.py"))
    assert spec is not None and spec.loader is not None
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    return list(probe.CHECKS)


NAMES = names_of_checks()
# What only a control group counts, so that a sandbox that may have none goes without.
CONTAINERS_ALONE = {"memory_file", "memory_file_can_be_executed"}


@pytest.fixture(scope="module")
def outcomes(run_probe: Any) -> dict[str, str]:
    """Try all of them in one sandbox."""
    result: dict[str, str] = run_probe("probe_work.py", NAMES)
    if run_probe is run_in_bubblewrap:
        for name in CONTAINERS_ALONE:
            assert "[Errno 38]" in result[name]
            result[name] = "ok"
    return result


@pytest.mark.parametrize("name", NAMES)
def test_allowed(name: str, outcomes: dict[str, str]) -> None:
    """The work is done as if there were no filter."""
    assert outcomes[name] == "ok", outcomes[name]
