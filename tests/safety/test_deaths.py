"""Code that ends its interpreter, or damages it, ends nothing else."""

import time
from contextlib import suppress

import pytest

from codemode.errors import SessionLostError
from tests.safety.arena import ANY, Arena, Attack, Outcome

WHATEVER = Outcome(error=ANY)
DIED = Outcome(error="SandboxDiedError")

ATTACKS = [
    Attack(
        name="os._exit",
        code="import os; os._exit(0)",
        ends=Outcome(error="SandboxDiedError", says="exit code 0"),
    ),
    Attack(
        name="os._exit in a session",
        code="import os; os._exit(3)",
        in_session=True,
        ends=Outcome(error="SandboxDiedError", says="exit code 3", session="lost"),
    ),
    Attack(
        name="killing itself",
        code="import os; os.kill(os.getpid(), 9)",
        ends=Outcome(error="SandboxDiedError", says="signal 9"),
    ),
    Attack(
        name="a crash in C",
        code="import ctypes; ctypes.string_at(0)",
        ends=Outcome(error="SandboxDiedError", says="signal 11"),
    ),
    Attack(
        name="an abort",
        code="import os; os.abort()",
        ends=Outcome(error="SandboxDiedError", says="signal 6"),
    ),
    Attack(
        name="sending every signal to process 1",
        code="""
import os
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
result = "still here"
""",
        ends=Outcome(result="still here"),
    ),
    Attack(
        name="killing its parent",
        code="import os; os.kill(os.getppid(), 9); result = 'still here'",
        ends=Outcome(result="still here"),
    ),
    Attack(
        name="killing everything",
        code="""
import os, signal
child = os.fork()
if child == 0:
    signal.pause()
os.kill(-1, 9)
result = os.waitpid(child, 0)[1]
""",
        ends=Outcome(result="9"),
    ),
    Attack(
        name="lowering the supervisor's limits",
        code="""
import resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK):
    resource.prlimit(1, kind, (4, 4))
""",
        ends=Outcome(),
    ),
    Attack(
        name="lowering the supervisor's limits from a session",
        code="import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))",
        in_session=True,
        # A supervisor that has to watch, and can open nothing any more, ends with its sandbox.
        ends=WHATEVER,
    ),
    Attack(
        name="lowering everybody's priority",
        code="import os; os.setpriority(os.PRIO_USER, 0, 19)",
        ends=Outcome(),
    ),
    Attack(
        name="closing every descriptor",
        code="import os; os.closerange(0, 1000)",
        ends=DIED,
    ),
    Attack(
        name="closing every descriptor and going on",
        code="import os; os.closerange(0, 1000)\nwhile True: pass",
        timeout=0.5,
        ends=Outcome(error="TimeoutError", limit="timeout_seconds"),
    ),
    Attack(
        name="shutting its channel down",
        code="import socket; socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)",
        ends=DIED,
    ),
    Attack(
        name="a child that outlives it and keeps its channel busy",
        code="""
import os
for _ in range(8):
    if os.fork() == 0:
        while True:
            os.write(3, bytes.fromhex("00000013 20 00000013") + b'{"stream":"stdout"}')
os._exit(0)
""",
        ends=DIED,
    ),
    Attack(
        name="a child that outlives it and keeps its output busy",
        code="""
import os
for _ in range(8):
    if os.fork() == 0:
        while True:
            os.write(1, b"x" * 65536)
os._exit(0)
""",
        ends=DIED,
    ),
]

HOSTILE = [
    Attack(
        name="replaced builtins",
        code="""
import builtins, json, sys, os, io, struct
def broken(*args, **kwargs):
    raise RuntimeError("replaced")
for name in ("print", "str", "repr", "len", "isinstance", "type", "open", "getattr", "range", "dict", "list"):
    setattr(builtins, name, broken)
json.dumps = json.loads = broken
sys.stdout = sys.stderr = sys.stdin = None
os.write = broken
result = 1
""",
        ends=WHATEVER,
    ),
    Attack(
        name="deleted builtins",
        code="""
import builtins
for name in [*vars(builtins)]:
    delattr(builtins, name)
""",
        ends=WHATEVER,
    ),
    Attack(
        name="a replaced sys.stdout",
        code="""
import sys
class Broken:
    def __getattr__(self, name):
        raise SystemError(name)
sys.stdout = sys.stderr = Broken()
result = "done"
""",
        ends=WHATEVER,
    ),
    Attack(
        name="a deleted sys.stdout",
        code="import sys; del sys.stdout, sys.stderr, sys.stdin; result = 'done'",
        ends=WHATEVER,
    ),
    Attack(
        name="modules taken away",
        code="import sys; sys.modules.clear(); result = 'done'",
        ends=WHATEVER,
    ),
    Attack(
        name="a result whose text fails",
        code="class R:\n    def __str__(self): raise ValueError('no text')\nresult = R()",
        ends=Outcome(error="ValueError", says="no text"),
    ),
    Attack(
        name="a result whose text ends the interpreter",
        code="class R:\n    def __str__(self): raise SystemExit(7)\nresult = R()",
        ends=Outcome(error="SystemExit"),
    ),
    Attack(
        name="a result whose text is no text",
        code="class R:\n    def __str__(self): return 7\nresult = R()",
        ends=Outcome(error="TypeError"),
    ),
    Attack(
        name="a value whose repr fails",
        code="class R:\n    def __repr__(self): raise ValueError('no text')\nR()",
        ends=Outcome(error="ValueError", says="no text"),
    ),
    Attack(
        name="a result whose text is huge",
        code="class R:\n    def __str__(self): return 'x' * (50 << 20)\nresult = R()",
        ends=Outcome(notice="result_bytes"),
    ),
    Attack(
        name="a result that contains itself",
        code="result = []; result.append(result); result = result",
        ends=Outcome(result="[[...]]"),
    ),
    Attack(
        name="a result nested without end",
        code="result = []\nfor _ in range(100_000): result = [result]",
        ends=Outcome(error="RecursionError"),
    ),
    Attack(
        name="an error whose text fails",
        code="class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        ends=WHATEVER,
    ),
    Attack(
        name="an error whose text ends the interpreter",
        code="class E(Exception):\n    def __str__(self): raise SystemExit(7)\nraise E",
        ends=WHATEVER,
    ),
    Attack(
        name="an error whose text is interrupted",
        code="class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise E",
        ends=WHATEVER,
    ),
    Attack(
        name="an error whose text is huge",
        code="raise ValueError('x' * (50 << 20))",
        ends=Outcome(error="ValueError", says="xxx"),
    ),
    Attack(
        name="an error whose text has no end",
        code="class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        timeout=0.5,
        ends=Outcome(error="TimeoutError", limit="timeout_seconds"),
    ),
    Attack(
        name="an error whose attributes fail",
        code="""
class E(ModuleNotFoundError):
    def __getattribute__(self, name):
        raise SystemError(name)
    def __setattr__(self, name, value):
        raise SystemError(name)
raise E
""",
        ends=WHATEVER,
    ),
    Attack(
        name="an error whose type has no name",
        code="""
class Meta(type):
    __name__ = property(lambda self: 1 / 0)
class E(Exception, metaclass=Meta):
    pass
raise E
""",
        ends=WHATEVER,
    ),
    Attack(
        name="errors that cause each other without end",
        code="""
first = error = ValueError()
for _ in range(50_000):
    error.__context__ = error = ValueError()
raise first
""",
        timeout=1,
        ends=WHATEVER,
    ),
    Attack(
        name="a shell turned against its user",
        code="""
shell = get_ipython()
shell.showtraceback = shell.run_cell = shell.display_pub = None
1 / 0
""",
        ends=WHATEVER,
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_interpreter_that_is_ended_ends_alone(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", HOSTILE, ids=str)
def test_objects_that_misbehave_reach_only_their_own_execution(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", HOSTILE, ids=str)
def test_a_session_whose_interpreter_was_broken_answers_or_ends(arena: Arena, attack: Attack) -> None:
    with arena.unharmed():
        arena.codemode.with_context(client_id="attacker")
        with arena.codemode.session() as session:
            session.run(attack.code, execution_timeout=2)
            # It may have broken its own interpreter for good; it must not keep its caller waiting.
            began = time.monotonic()
            with suppress(SessionLostError):
                session.run("1 + 1", execution_timeout=2)
            assert time.monotonic() - began < 8
