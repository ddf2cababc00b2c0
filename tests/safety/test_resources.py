"""Code that takes more than its share is stopped at the limit that it reached."""

from dataclasses import replace

import pytest

from tests.safety.arena import OUT_OF_MEMORY, OUT_OF_TIME, SMALL_MEMORY, Arena, Attack, Outcome

PROCESSES = [
    Attack(
        name="fork bomb",
        code="""
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        timeout=1,
        ends=OUT_OF_TIME,
    ),
    Attack(
        name="fork bomb in a session",
        code="""
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        timeout=1,
        in_session=True,
        ends=replace(OUT_OF_TIME, session="lost"),
    ),
    Attack(
        name="more processes than allowed",
        code="""
import os, signal
for count in range(1000):
    try:
        if os.fork() == 0:
            signal.pause()
    except BlockingIOError:
        break
# The supervisor and the interpreter are processes as well.
result = count in (126, 127)
""",
        ends=Outcome(result="True"),
    ),
    Attack(
        name="more threads than allowed",
        code="""
import threading
threading.stack_size(64 << 10)
wait = threading.Event()
try:
    for count in range(1000):
        threading.Thread(target=wait.wait, daemon=True).start()
except RuntimeError as error:
    print(error)
result = count < 128
""",
        ends=Outcome(result="True"),
    ),
    Attack(
        name="threads that start threads",
        code="""
import threading
threading.stack_size(64 << 10)
def breed():
    while True:
        try:
            threading.Thread(target=breed).start()
        except RuntimeError:
            pass
breed()
""",
        timeout=1,
        ends=OUT_OF_TIME,
    ),
]

NAMED = [
    Attack(
        name="processes",
        code="""
import os, signal
while True:
    if os.fork() == 0:
        signal.pause()
""",
        ends=Outcome(error="BlockingIOError", limit="processes"),
    ),
    Attack(
        name="threads",
        code="""
import threading
threading.stack_size(64 << 10)
wait = threading.Event()
while True:
    threading.Thread(target=wait.wait, daemon=True).start()
""",
        ends=Outcome(error="RuntimeError", limit="processes"),
    ),
    Attack(
        name="open files",
        code="""
kept = []
while True:
    kept.append(open("/dev/null"))
""",
        ends=Outcome(error="OSError", limit="open_files"),
    ),
    Attack(
        name="the size of /tmp",
        code="""
import itertools
for count in itertools.count():
    open(f"/tmp/{count}", "wb", 0).write(b"x" * (1 << 20))
""",
        limits={"tmp_bytes": 8 << 20},
        ends=Outcome(error="OSError", limit="tmp_bytes"),
    ),
    Attack(
        name="files in /tmp",
        code="""
import itertools
for count in itertools.count():
    open(f"/tmp/{count}", "wb").close()
""",
        ends=Outcome(error="SandboxDiedError", limit="tmp_inodes"),
        in_docker=Outcome(error="OSError", limit="tmp_inodes"),
    ),
    Attack(
        name="memory",
        code="kept = bytearray(8 << 30)",
        ends=Outcome(error="MemoryError", limit="memory_bytes"),
    ),
]

FILES = [
    Attack(
        name="a full /tmp",
        code="""
import os
with open("/tmp/full", "wb", 0) as file:
    try:
        while True:
            file.write(b"x" * (1 << 18))
    except OSError as error:
        result = error.strerror
""",
        limits={"tmp_bytes": 8 << 20},
        ends=Outcome(result="No space left on device"),
    ),
    Attack(
        name="a full /dev/shm",
        code="""
with open("/dev/shm/full", "wb", 0) as file:
    try:
        while True:
            file.write(b"x" * (1 << 20))
    except OSError as error:
        result = error.strerror
""",
        ends=Outcome(result="No space left on device"),
    ),
    Attack(
        name="more files than /tmp may have",
        code="""
for count in range(100_000):
    try:
        open(f"/tmp/{count}", "w").close()
    except OSError as error:
        result = error.strerror
        break
""",
        ends=Outcome(error="SandboxDiedError", limit="tmp_inodes"),
        in_docker=Outcome(result="No space left on device"),
    ),
    Attack(
        name="more files than /dev/shm may have",
        code="""
for count in range(400_000):
    open(f"/dev/shm/{count}", "w").close()
""",
        limits=SMALL_MEMORY,
        timeout=20,
        within=25,
        ends=Outcome(error="SandboxDiedError", limit="tmp_inodes"),
        in_docker=OUT_OF_MEMORY,
    ),
    Attack(
        name="a tree of folders too deep to remove",
        code="""
import os
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
""",
        ends=Outcome(),
    ),
    Attack(
        name="folders that forbid their removal",
        code="""
import os
os.makedirs("a/b/c")
os.chmod("a/b", 0)
os.chmod("a", 0)
os.chmod("/tmp/work", 0)
""",
        ends=Outcome(),
    ),
    Attack(
        name="more open files than allowed",
        code="""
import os
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError as error:
    result = error.strerror
""",
        ends=Outcome(result="Too many open files"),
    ),
    Attack(
        name="a raised limit",
        code="""
import resource
refused = 0
kinds = [resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE]
for kind in kinds:
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
    except (ValueError, OSError):
        refused += 1
result = refused == len(kinds)
""",
        ends=Outcome(result="True"),
    ),
]


@pytest.mark.parametrize("attack", PROCESSES, ids=str)
def test_processes_and_threads_are_bounded(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", NAMED, ids=str)
def test_an_error_names_the_limit_that_caused_it(arena: Arena, attack: Attack) -> None:
    result = arena.attack(attack)
    assert result.error_details is not None
    if attack.ends.error != "SandboxDiedError" or arena.backend == "docker":
        assert f"This is the sandbox's limit {attack.ends.limit}=" in result.error_details.traceback


@pytest.mark.parametrize("attack", FILES, ids=str)
def test_files_are_bounded(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", [*PROCESSES, *FILES], ids=str)
def test_both_are_bounded_where_there_are_no_control_groups(watched_arena: Arena, attack: Attack) -> None:
    watched_arena.attack(attack)


def test_processor_time_is_shared_with_other_owners(arena: Arena) -> None:
    arena.attack(
        Attack(
            name="busy processes",
            code="""
import os
for _ in range(40):
    if os.fork() == 0:
        while True:
            pass
while True:
    pass
""",
            timeout=1.5,
            ends=OUT_OF_TIME,
        )
    )


def test_a_hundred_threads_are_no_attack(arena: Arena) -> None:
    arena.attack(
        Attack(
            name="a hundred threads",
            code="""
import threading
together = threading.Barrier(101)
def meet(depth=900):
    return meet(depth - 1) if depth else together.wait(10)
threads = [threading.Thread(target=meet) for _ in range(100)]
for thread in threads:
    thread.start()
together.wait(10)
for thread in threads:
    thread.join()
result = len(threads)
""",
            ends=Outcome(result="100"),
            timeout=20,
        )
    )
