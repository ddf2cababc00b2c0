"""What an execution leaves behind is gone before its owner's next one, and never reaches another owner."""

from dataclasses import replace

import pytest

from codemode import RuntimeContext
from codemode.errors import CodemodeError
from tests.safety.arena import Arena, Attack, Outcome

# Whether any of it is there is checked after every attack.
LEAVES = [
    Attack(
        name="files",
        code="""
import os
for folder in (".", "/tmp", "/tmp/home", "/dev/shm"):
    open(f"{folder}/left", "w").write("x")
    open(f"{folder}/.left", "w").write("x")
    os.makedirs(f"{folder}/a/b")
    os.symlink("/usr", f"{folder}/link")
result = len(os.listdir("/dev/shm"))
""",
        ends=Outcome(result="4"),
    ),
    Attack(
        name="a background process",
        code="import subprocess; subprocess.Popen(['sleep', '1000'])",
        ends=Outcome(),
    ),
    Attack(
        name="a shell's background job",
        code="!sleep 1000 &",
        ends=Outcome(),
    ),
    Attack(
        name="a daemon that writes files for ever",
        code="""
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            for folder in ("/tmp/work", "/tmp", "/dev/shm"):
                try:
                    open(f"{folder}/{os.getpid()}", "w").close()
                except OSError:
                    pass
    os._exit(0)
os.wait()
""",
        ends=Outcome(),
    ),
    Attack(
        name="many daemons that breed",
        code="""
import os
def breed():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass
if os.fork() == 0:
    breed()
""",
        ends=Outcome(),
    ),
    Attack(
        name="threads",
        code="""
import threading
for _ in range(20):
    threading.Thread(target=threading.Event().wait).start()
""",
        ends=Outcome(),
    ),
    Attack(
        name="what runs at the end",
        code="""
import atexit, sys, threading, weakref
def late():
    while True:
        pass
atexit.register(late)
threading._register_atexit(late)
class Endless:
    def __del__(self):
        late()
keep = Endless()
""",
        ends=Outcome(),
    ),
    Attack(
        name="tasks",
        code="""
import asyncio
async def forever():
    while True:
        open("left", "w").close()
        await asyncio.sleep(0)
tasks = [asyncio.create_task(forever()) for _ in range(10)]
await asyncio.sleep(0.01)
""",
        ends=Outcome(),
    ),
]


@pytest.mark.parametrize("attack", LEAVES, ids=str)
def test_nothing_is_left_for_the_next_execution(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", LEAVES, ids=str)
def test_nothing_is_left_of_a_session(arena: Arena, attack: Attack) -> None:
    arena.attack(replace(attack, in_session=True, ends=replace(attack.ends, session="kept")))


# Writes something down where the next execution could look, and prints what it finds there.
MARKS = {
    "variables": "print(sorted(set(globals()) & {'mark'}))\nmark = 1",
    "builtins": "import builtins; print([n for n in vars(builtins) if 'mark' in n]); builtins.mark = 1",
    "modules": "import sys, json; print([n for n in sys.modules if 'mark' in n], hasattr(json, 'mark'))\n"
    "sys.modules['mark'] = json; json.mark = 1",
    "environment": "import os; print(os.environ.get('MARK')); os.environ['MARK'] = '1'",
    "history": "print(In[1:], Out)",
    "magics": "print('mark' in get_ipython().magics_manager.magics['line'])\n"
    "from IPython.core.magic import register_line_magic\n@register_line_magic\ndef mark(line): pass",
    "attributes of folders": """
import os
for folder in ("/tmp", "/tmp/work", "/tmp/home", "/dev/shm"):
    print(folder, os.listxattr(folder))
    try:
        os.setxattr(folder, b"user.mark", b"1")
    except OSError:
        pass
""",
    "modes of folders": """
import os
for folder in ("/tmp", "/tmp/work", "/tmp/home", "/dev/shm"):
    print(folder, oct(os.stat(folder).st_mode))
    try:
        os.chmod(folder, 0o700 if folder != "/tmp" else 0o1770)
    except OSError:
        pass
""",
    "priorities": """
import os
print(os.getpriority(os.PRIO_PROCESS, 0))
os.setpriority(os.PRIO_PROCESS, 1, 5)
""",
    "limits": """
import resource
kinds = [resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_STACK, resource.RLIMIT_AS]
print([resource.getrlimit(kind) for kind in kinds])
for kind in kinds:
    soft, hard = resource.prlimit(1, kind)
    value = 1 << 30 if hard == resource.RLIM_INFINITY else hard - 1
    resource.prlimit(1, kind, (value, value))
""",
    "standing for the kernel's killer": """
print(open("/proc/self/oom_score_adj").read())
open("/proc/self/oom_score_adj", "w").write("0")
""",
    "names of the machine": """
import socket, os
print(socket.gethostname(), os.uname().nodename)
try:
    socket.sethostname("mark")
except OSError:
    pass
""",
    "shared memory by name": """
import multiprocessing.shared_memory as shared, multiprocessing
try:
    print(shared.SharedMemory("mark"))
except FileNotFoundError:
    print("none")
shared.SharedMemory("mark", create=True, size=100)
multiprocessing.get_context("fork").Semaphore(1)
""",
}


@pytest.mark.parametrize("code", MARKS.values(), ids=MARKS)
def test_what_is_written_down_is_not_found_by_the_next_execution(arena: Arena, code: str) -> None:
    with arena.unharmed():
        arena.codemode.with_context(client_id="attacker")
        first, second, third = (arena.codemode.run(code) for _ in range(3))
        assert first.success, first.error
        assert first.stdout == second.stdout == third.stdout


def test_random_numbers_are_not_those_of_the_execution_before(arena: Arena) -> None:
    code = "import random, uuid, os; result = [random.random(), uuid.uuid4().hex, os.urandom(8).hex()]"
    arena.codemode.with_context(client_id="attacker")
    drawn = [number for _ in range(3) for number in arena.codemode.run(code).value]
    assert len(set(drawn)) == 9


def test_another_owner_never_gets_the_sandbox(arena: Arena) -> None:
    seen: dict[str, set[str]] = {}
    for owner in ("first", "second", "first", "third", "second"):
        arena.codemode.with_context(client_id=owner)
        answer = arena.codemode.run("result = [config, context['client_id']]")
        seen.setdefault(owner, set()).add(answer.sandbox_id)
    assert not seen["first"] & seen["second"]
    assert not seen["first"] & seen["third"]
    assert not seen["second"] & seen["third"]


def test_a_session_of_another_owner_cannot_be_used(arena: Arena) -> None:
    arena.codemode.with_context(client_id="attacker")
    with arena.codemode.session() as session:
        session.execute("kept = 1")
        with pytest.raises(CodemodeError, match="client_id"):
            session.run("kept", context=RuntimeContext(variables={"client_id": "bystander"}))
        assert session.run("kept").value == 1


def test_messages_between_two_cells_do_not_end_the_session(arena: Arena) -> None:
    arena.codemode.with_context(client_id="attacker")
    with arena.codemode.session(limits={"output_bytes": 1 << 20}) as session:
        session.execute("""
import threading
def talk():
    while True:
        print("x" * 200_000)
threading.Thread(target=talk, daemon=True).start()
""")
        for number in range(20):
            answer = session.run(f"result = {number}")
            assert answer.session_state == "kept", answer.error
            assert answer.value == number
