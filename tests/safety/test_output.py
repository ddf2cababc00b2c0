"""Output without measure is cut at its limit, with a notice, and what comes after it still works."""

from dataclasses import replace

import pytest

from tests.safety.arena import Arena, Attack, Outcome

CUT = Outcome(notice="output_bytes", result="done")
LIMIT = 1 << 20

ATTACKS = [
    Attack(
        name="a gigabyte",
        code="""
block = "x" * (1 << 20) + "\\n"
for _ in range(1024):
    print(block)
result = "done"
""",
        timeout=20,
        within=25,
        ends=CUT,
    ),
    Attack(
        name="many megabytes through a descriptor",
        code="""
import os
for _ in range(256):
    os.write(1, b"x" * (1 << 20))
result = "done"
""",
        ends=CUT,
    ),
    Attack(
        name="many megabytes from a child",
        code="""
import subprocess
subprocess.run("head -c 256M /dev/zero >&2", shell=True)
result = "done"
""",
        ends=CUT,
    ),
    Attack(name="one enormous line", code="print('x' * (200 << 20)); result = 'done'", ends=CUT),
    Attack(
        name="many lines by turns on both streams",
        code="""
import sys
for _ in range(50_000):
    print("out")
    print("err", file=sys.stderr)
result = "done"
""",
        timeout=20,
        within=25,
        ends=CUT,
    ),
    Attack(
        name="a hundred thousand displays",
        code="""
for number in range(100_000):
    display(number)
result = "done"
""",
        timeout=30,
        within=30,
        ends=CUT,
    ),
    Attack(
        name="a huge display",
        code="display({'text/plain': 'x' * (40 << 20)}, raw=True); result = 'done'",
        ends=CUT,
    ),
    Attack(
        name="a display above what one message holds",
        code="display({'text/plain': 'x' * (65 << 20)}, raw=True)",
        ends=Outcome(error="FrameError"),
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_output_is_cut_with_a_notice(arena: Arena, attack: Attack) -> None:
    result = arena.attack(replace(attack, limits={"output_bytes": LIMIT}))
    assert len(result.stdout) + len(result.stderr) <= LIMIT
    assert sum(len(str(output.data)) for output in result.outputs) <= LIMIT


def test_endless_output_is_stopped_at_the_time_limit(arena: Arena) -> None:
    result = arena.attack(
        Attack(
            name="endless",
            code="while True: print('x' * 1000)",
            timeout=1,
            ends=Outcome(error="TimeoutError", limit="timeout_seconds", notice="output_bytes"),
            limits={"output_bytes": LIMIT},
        )
    )
    assert len(result.stdout) == LIMIT


def test_bytes_that_are_no_text_are_shown_as_replacement_characters(arena: Arena) -> None:
    result = arena.attack(
        Attack(
            name="invalid UTF-8",
            code=r"""
import os, sys
sys.stdout.buffer.write(b"\xff\xfe caf\xc3\xa9 \xc3")
print("\ud800 half")
sys.stdout.flush()
os.write(1, b"\xed\xa0\x80\xf5\n")
result = "\udfff"
""",
            ends=Outcome(),
        )
    )
    assert "café" in result.stdout
    assert "�" in result.stdout
    result.stdout.encode("utf-8")
    result.result.encode("utf-8")


def test_a_result_without_measure_is_cut_with_a_notice(arena: Arena) -> None:
    result = arena.attack(
        Attack(
            name="huge result",
            code="result = 'x' * (100 << 20)",
            limits={"result_bytes": 1000},
            ends=Outcome(notice="result_bytes"),
        )
    )
    assert result.result == "x" * 1000
    assert result.value is None
