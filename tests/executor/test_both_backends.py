"""What is to be the same wherever a sandbox comes from, and the words that have to differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codemode import Codemode
from tests.conftest import enforcement

ADVICE = {
    "docker": "codemode-executor image build --requirements FILE",
    "bubblewrap": "python -m pip install NAME",
}


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("sandbox_image")
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def codemode(backend: str) -> Iterator[Codemode]:
    with Codemode.local(backend=backend, preload="numpy,wave") as codemode:
        yield codemode


def test_half_a_processor_is_half_a_processor(codemode: Codemode) -> None:
    busy = """
import time
began, worked = time.monotonic(), time.process_time()
while time.monotonic() - began < 1.5:
    pass
result = (time.process_time() - worked) / (time.monotonic() - began)
"""
    bound = enforcement(codemode)["cpus"]
    share = float(codemode.run(busy, limits={"cpus": 0.5}).result)
    # Without control groups it is rounded up to whole ones, and says so.
    assert 0.2 < share < (0.65 if bound == "control group" else 1.05)


def test_what_is_preloaded_is_there_before_the_code(codemode: Codemode) -> None:
    assert codemode.execute("import sys; result = [name in sys.modules for name in ('numpy', 'wave')]") == (
        "[True, True]"
    )


def test_chance_is_another_in_every_interpreter(codemode: Codemode) -> None:
    code = "import random, numpy; result = (random.random(), numpy.random.rand())"
    drawn = [eval(codemode.execute(code)) for _ in range(4)]
    assert len({one for one, _ in drawn}) == len({one for _, one in drawn}) == 4


def test_a_missing_module_says_how_this_sandbox_gets_it(codemode: Codemode, backend: str) -> None:
    details = codemode.run("import no_such_module_anywhere").error_details
    assert details is not None
    assert ADVICE[backend] in details.traceback


def test_a_process_of_the_codes_that_is_ended_for_memory_is_no_mystery(codemode: Codemode) -> None:
    code = """
import mmap, os
if (pid := os.fork()) == 0:
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 8 << 20))
        kept[-1].write(b"x" * (8 << 20))
_, status = os.waitpid(pid, 0)
result = os.waitstatus_to_exitcode(status)
"""
    for _ in range(2):
        outcome = codemode.run(code, limits={"memory_bytes": 128 << 20})
        if outcome.success:
            assert (outcome.value, [notice.limit for notice in outcome.notices]) == (-9, ["memory_bytes"])
        else:
            # Where the supervisor watches, it ends all of them.
            assert outcome.error_details is not None
            assert outcome.error_details.type == "OutOfMemoryError"
    quiet = codemode.run("import subprocess; subprocess.run(['true'])", limits={"memory_bytes": 128 << 20})
    assert quiet.notices == []
