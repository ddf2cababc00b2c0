"""Code that does not end is stopped at its time, and only code that resists takes its session with it."""

from dataclasses import replace
from typing import Literal

import pytest

from tests.safety.arena import OUT_OF_TIME, Arena, Attack

STOPS_WHEN_INTERRUPTED = {
    "a loop": "while True: pass",
    "a sleep": "import time; time.sleep(1000)",
    "an await": "import asyncio; await asyncio.sleep(1000)",
    "a wait for a child": "import subprocess; subprocess.run(['sleep', '1000'])",
    "a wait for a thread": "import threading; threading.Event().wait()",
    "a huge power": "10 ** 10 ** 8 % 7",
    "a catastrophic regular expression": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "a result whose text has no end": """
class Endless:
    def __str__(self):
        while True:
            pass
result = Endless()
""",
    "a loop that swallows errors": """
while True:
    try:
        1 / 0
    except Exception:
        pass
""",
}

RESISTS = {
    "swallowing every exception": """
def spin():
    while True:
        pass
while True:
    try:
        spin()
    except BaseException:
        pass
""",
    "ignoring every signal": """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""",
    "blocking every signal": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass
""",
    "a tight loop in C": "sum(iter(int, 1))",
    "an endless repr": """
class Endless:
    def __repr__(self):
        while True:
            try:
                while self:
                    pass
            except BaseException:
                pass
Endless()
""",
}


def in_either(stateless: str, code: str, session: Literal["kept", "lost"]) -> list[Attack]:
    """The same code without a session, and in one."""
    alone = Attack(name=stateless, code=code, timeout=0.5, within=3, ends=OUT_OF_TIME)
    kept = replace(OUT_OF_TIME, session=session)
    return [alone, replace(alone, name=f"{stateless}, in a session", in_session=True, ends=kept)]


@pytest.mark.parametrize(
    "attack",
    [attack for name, code in STOPS_WHEN_INTERRUPTED.items() for attack in in_either(name, code, "kept")],
    ids=str,
)
def test_code_that_can_be_interrupted_keeps_its_session(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize(
    "attack",
    [attack for name, code in RESISTS.items() for attack in in_either(name, code, "lost")],
    ids=str,
)
def test_code_that_resists_is_killed_with_its_session(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


def test_a_session_that_was_interrupted_still_has_its_variables(arena: Arena) -> None:
    with arena.unharmed():
        arena.codemode.with_context(client_id="attacker")
        with arena.codemode.session() as session:
            session.execute("kept = [1]")
            for _ in range(3):
                stopped = session.run("kept.append(1)\nwhile True: pass", execution_timeout=0.3)
                assert stopped.session_state == "kept"
            assert session.run("kept").value == [1, 1, 1, 1]
