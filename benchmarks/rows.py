"""What is measured, on one backend, with every default unchanged."""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
from codemode_executor.backends.docker import LABEL
from codemode_executor.config import ExecutorConfig
from codemode_proto.v1 import executor_pb2 as pb

from benchmarks import floors
from benchmarks.measure import Row, family_of, median_seconds, memory_of, once
from codemode import Codemode, ComponentRegistry
from codemode.wire.checks import describe
from codemode.wire.loop import run

MB = 1 << 20
_TOOL_LOOP = """
import time
times = []
for _ in range(300):
    began = time.perf_counter()
    tools.echo(text="x")
    times.append(time.perf_counter() - began)
result = sorted(times)[len(times) // 2]
"""


def measure(backend: str) -> Iterator[Row]:
    """Measure every row; yields each as it is there."""
    registry = ComponentRegistry()
    registry.register_tool("echo", lambda text: text)
    with floors.ipykernel() as (cold, run_in_kernel, kernel):
        warm = median_seconds(run_in_kernel, 200)
        kernel_memory = memory_of([kernel])
    yield _idle(backend, kernel_memory)
    with Codemode.local(registry, backend=backend) as codemode:
        yield from _sessions(codemode, cold, warm)
        yield from _stateless(codemode)
        yield from _moving(codemode)
        if backend == "docker":
            yield _closing(codemode, floors.docker_kill(_ready(codemode).image))
        yield _new_owners(codemode, cold)
    yield _cold(registry, backend, cold)
    yield from _with_pandas(registry, backend)


def _idle(backend: str, kernel_memory: int) -> Row:
    """Memory of a warm sandbox that nobody uses; the executor's own is shared out among all of them."""
    with Codemode.local(backend=backend) as codemode:
        assert codemode.local_executor is not None
        executor = codemode.local_executor.pid
        count = ExecutorConfig().warm
        while _ready(codemode).warm_sandboxes < count:
            time.sleep(0.1)
        # Until they have prepared themselves for what may come.
        time.sleep(1)
        processes = family_of(executor)
        if backend == "docker":
            client = docker.from_env()
            containers = client.containers.list(filters={"label": LABEL})
            processes += [pid for one in containers for pid in family_of(one.attrs["State"]["Pid"])]
            client.close()
        each = memory_of(processes) / count
    return Row("idle warm sandbox, memory", each, "ipykernel", kernel_memory, 0.8, "MB")


def _sessions(codemode: Codemode, cold: float, warm: float) -> Iterator[Row]:
    kernel = "ipykernel execute_request"
    with codemode.session() as session:
        yield Row(
            "warm `1+1` in a session", median_seconds(lambda: session.run("1+1"), 300), kernel, warm, 0.3
        )
        # Twice, because the first tool call starts a thread.
        session.run(_TOOL_LOOP)
        answer = session.run(_TOOL_LOOP)
    round_trip = floors.grpc_round_trip()
    yield Row("a tool call and its answer", float(answer.result), "gRPC message round trip", round_trip, 3.0)

    times = []
    for _ in range(5):
        times.append(_first_result(codemode))
        # Until the pool is full again.
        time.sleep(0.5)
    yield Row("new session to first result", statistics.median(times), "ipykernel cold start", cold, 0.03)


def _first_result(codemode: Codemode) -> float:
    with contextlib.ExitStack() as stack:
        session = codemode.session()
        stack.callback(session.close)
        return once(lambda: session.run("1+1"))


def _stateless(codemode: Codemode) -> Iterator[Row]:
    fork, fork_on_all_cores = floors.forks("1+1")
    # The pool is refilled after the first of an owner; what follows shall not measure that.
    for _ in range(200):
        codemode.execute("1+1")
    one = median_seconds(lambda: codemode.execute("1+1"), 300)
    yield Row("stateless `1+1`", one, "fork of a warm interpreter", fork, 2.5)
    floors.in_parallel(lambda: codemode.execute("1+1"), 16, 300)
    rate = floors.in_parallel(lambda: codemode.execute("1+1"), 16, 1500)
    yield Row(
        "stateless, 16 clients, per execution", rate, "forks on all cores, per fork", fork_on_all_cores, 2.5
    )


def _moving(codemode: Codemode) -> Iterator[Row]:
    code = f"print('x' * {10 * MB})"
    printed = median_seconds(lambda: codemode.run(code), 5, 1)
    yield Row("10 MB of stdout", printed, "the same through a pipe", floors.through_a_pipe(10 * MB))
    with tempfile.TemporaryDirectory() as folder, codemode.session() as session:
        source = Path(folder) / "100MB"
        source.write_bytes(b"x" * (100 * MB))
        pipe = floors.through_a_pipe(100 * MB)
        yield Row("a 100 MB file in", once(lambda: session.put_file(source)), "the same through a pipe", pipe)
        back = Path(folder) / "back"
        yield Row(
            "a 100 MB file out",
            once(lambda: session.get_file("100MB", back)),
            "the same through a pipe",
            pipe,
        )


def _ready(codemode: Codemode) -> pb.ReadyResponse:
    return run(describe(codemode.executor_client._connection))


def _closing(codemode: Codemode, kill: float) -> Row:
    times = []
    for _ in range(5):
        session = codemode.session().open()
        session.run("1")
        times.append(once(session.close))
    return Row("closing a session", statistics.median(times), "docker kill of an idle container", kill, 1.5)


_owner = itertools.count()


def _new_owners(codemode: Codemode, cold: float) -> Row:
    def new_owner() -> None:
        codemode.with_context(client_id=f"owner-{next(_owner)}").execute("1+1")

    return Row(
        "first execution of a new owner, every time another",
        median_seconds(new_owner, 10),
        "ipykernel cold start",
        cold,
    )


def _cold(registry: ComponentRegistry, backend: str, cold: float) -> Row:
    with Codemode.local(registry, backend=backend, warm=0) as codemode:
        times = []
        for _ in range(3):
            codemode.with_context(client_id=f"cold-{next(_owner)}")
            times.append(_first_result(codemode))
    reach = 1.5 if backend == "docker" else 1.0
    return Row(
        "new session to first result, pool empty",
        statistics.median(times),
        "ipykernel cold start",
        cold,
        reach,
    )


def _with_pandas(registry: ComponentRegistry, backend: str) -> Iterator[Row]:
    code = "import pandas as pd; pd.DataFrame({'a': [1, 2]}).sum()"
    fork, _ = floors.forks(code, "import pandas")
    with Codemode.local(registry, backend=backend, preload="numpy,pandas") as codemode:
        for _ in range(100):
            codemode.execute(code)
        one = median_seconds(lambda: codemode.execute(code), 100)
    yield Row("stateless with pandas, preloaded", one, "the same in a fork", fork, 2.0)
