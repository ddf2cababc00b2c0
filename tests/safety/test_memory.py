"""Code that takes more memory than its share is stopped, whatever it is made of and whoever counts it."""

from dataclasses import replace

import pytest

from tests.safety.arena import ANY, OUT_OF_MEMORY, OUT_OF_TIME, SMALL_MEMORY, Arena, Attack, Outcome

# Where nothing would count such memory, there is none.
NO_MEMFD = Outcome(error="OSError", says="Function not implemented")

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


@pytest.mark.parametrize("attack", MEMORY, ids=str)
def test_memory_is_bounded(arena: Arena, attack: Attack) -> None:
    arena.attack(replace(attack, limits=SMALL_MEMORY))


@pytest.mark.parametrize("attack", MEMORY, ids=str)
def test_memory_is_bounded_where_only_the_supervisor_counts_it(watched_arena: Arena, attack: Attack) -> None:
    watched_arena.attack(replace(attack, limits=SMALL_MEMORY))
