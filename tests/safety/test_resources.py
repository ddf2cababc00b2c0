"""Code that takes more than its share is stopped at the limit that it reached."""

from dataclasses import replace

import pytest

from tests.safety.arena import ANY, SMALL_MEMORY, Arena, Attack, Outcome

OUT_OF_MEMORY = Outcome(error="OutOfMemoryError", limit="memory_bytes")
OUT_OF_TIME = Outcome(error="TimeoutError", limit="timeout_seconds")
# Where nothing would count such memory, there is none.
NO_MEMFD = Outcome(error="OSError", says="Function not implemented")

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

MEMORY = [
    Attack(
        name="one large allocation",
        code="block = bytearray(1 << 30)",
        ends=Outcome(error="MemoryError", limit="memory_bytes"),
    ),
    Attack(
        name="many small allocations that are kept",
        code="""
kept = []
while True:
    kept.append(b"x" * 100_000)
""",
        ends=Outcome(error="MemoryError", limit="memory_bytes"),
    ),
    Attack(
        name="shared mappings",
        code="""
import mmap
kept = []
while True:
    block = mmap.mmap(-1, 8 << 20)
    block[:] = bytes(8 << 20)
    kept.append(block)
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="shared mappings whose pages are no longer mapped",
        code="""
import mmap
kept = []
while True:
    block = mmap.mmap(-1, 8 << 20)
    block[:] = b"x" * (8 << 20)
    block.madvise(mmap.MADV_DONTNEED)
    kept.append(block)
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="page tables",
        code="""
import mmap, signal
block = mmap.mmap(-1, 128 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
for offset in range(0, len(block), 2 << 20):
    block[offset]
signal.pause()
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="what nobody reads from pipes",
        code="""
import os, signal
for _ in range(100):
    if os.fork() == 0:
        break
while True:
    try:
        _, writing = os.pipe()
    except OSError:
        signal.pause()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        pass
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="many files in memory",
        code="""
import os
while True:
    os.write(os.memfd_create("x"), b"x" * (8 << 20))
""",
        ends=NO_MEMFD,
        in_docker=OUT_OF_MEMORY,
    ),
    Attack(
        name="files in memory, on their way to nobody",
        code="""
import os, socket
kept = []
while True:
    kept.append(socket.socketpair())
    descriptor = os.memfd_create("x")
    os.write(descriptor, b"x" * (8 << 20))
    socket.send_fds(kept[-1][0], [b"x"], [descriptor])
    os.close(descriptor)
""",
        ends=NO_MEMFD,
        in_docker=OUT_OF_MEMORY,
    ),
    Attack(
        name="what nobody reads from sockets",
        code="""
import os, signal, socket
for _ in range(3):
    if os.fork() == 0:
        break
kept = []
while True:
    try:
        kept.append(socket.socketpair())
    except OSError:
        signal.pause()
    for one in kept[-1]:
        one.setblocking(False)
        try:
            while True:
                one.send(b"x" * 60_000)
        except BlockingIOError:
            pass
""",
        limits=SMALL_MEMORY,
        ends=OUT_OF_MEMORY,
        # The kernel ends some processes, and the others wait on.
        in_docker=Outcome(error=ANY),
    ),
    Attack(
        name="what nobody reads from the network",
        code="""
import signal, socket
listener = socket.create_server(("127.0.0.1", 0))
kept = []
while True:
    try:
        kept.append((socket.create_connection(listener.getsockname()), listener.accept()))
    except OSError:
        signal.pause()
    kept[-1][0].setblocking(False)
    try:
        while True:
            kept[-1][0].send(b"x" * 1_000_000)
    except BlockingIOError:
        pass
""",
        limits=SMALL_MEMORY,
        timeout=8,
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="one file in memory, held by a child",
        code="""
import os, signal
if os.fork() == 0:
    descriptor = os.memfd_create("x")
    while True:
        os.write(descriptor, b"x" * (8 << 20))
os.wait()
signal.pause()
""",
        timeout=2,
        # The child ends, of its error or by the kernel, and its parent waits on.
        ends=OUT_OF_TIME,
        in_docker=replace(OUT_OF_TIME, notice="memory_bytes"),
    ),
    Attack(
        name="files in /tmp",
        code="""
count = 0
while True:
    count += 1
    with open(f"/tmp/{count}", "wb") as file:
        file.write(b"x" * (8 << 20))
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="files in /dev/shm and /tmp, deleted and held open",
        code="""
import os
kept = []
while True:
    for folder in ("/dev/shm", "/tmp"):
        try:
            kept.append(open(f"{folder}/x", "wb"))
            kept[-1].write(b"x" * (4 << 20))
            kept[-1].flush()
        except OSError:
            pass
        os.unlink(f"{folder}/x")
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="many processes that each stay below the limit",
        code="""
import os, signal
for _ in range(10):
    if os.fork() == 0:
        block = b"x" * (60 << 20)
        signal.pause()
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)])
os.abort()
""",
        ends=OUT_OF_MEMORY,
    ),
    Attack(
        name="shared mappings in a session",
        code="""
import mmap
kept = []
while True:
    kept.append(mmap.mmap(-1, 8 << 20))
    kept[-1][:] = bytes(8 << 20)
""",
        in_session=True,
        ends=replace(OUT_OF_MEMORY, session="lost"),
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


@pytest.mark.parametrize("attack", MEMORY, ids=str)
def test_memory_is_bounded_whatever_it_is_made_of(arena: Arena, attack: Attack) -> None:
    arena.attack(replace(attack, limits=SMALL_MEMORY))


@pytest.mark.parametrize("attack", NAMED, ids=str)
def test_an_error_names_the_limit_that_caused_it(arena: Arena, attack: Attack) -> None:
    result = arena.attack(attack)
    assert result.error_details is not None
    if attack.ends.error != "SandboxDiedError" or arena.backend == "docker":
        assert f"This is the sandbox's limit {attack.ends.limit}=" in result.error_details.traceback


@pytest.mark.parametrize("attack", FILES, ids=str)
def test_files_are_bounded(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize(
    "attack", [*PROCESSES, *(replace(attack, limits=SMALL_MEMORY) for attack in MEMORY), *FILES], ids=str
)
def test_all_is_bounded_where_there_are_no_control_groups(watched_arena: Arena, attack: Attack) -> None:
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
