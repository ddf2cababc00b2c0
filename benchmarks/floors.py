"""What the rows are compared with."""

import asyncio
import queue
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from jupyter_client.manager import start_new_kernel
from jupyter_client.provisioning.local_provisioner import LocalProvisioner


@contextmanager
def ipykernel() -> Iterator[tuple[float, Callable[[], None], int]]:
    """An ordinary kernel: seconds to its first result, a function that runs `1+1` in it, and its process."""
    began = time.perf_counter()
    manager, client = start_new_kernel(kernel_name="python3", stderr=subprocess.DEVNULL)

    def run() -> None:
        sent = client.execute("1+1")
        for receive in (client.get_shell_msg, client.get_iopub_msg):
            while True:
                message = receive(timeout=10)
                mine = message["parent_header"].get("msg_id") == sent
                if mine and (
                    message["msg_type"] == "execute_reply"
                    or message["content"].get("execution_state") == "idle"
                ):
                    break

    try:
        run()
        cold = time.perf_counter() - began
        assert isinstance(manager.provisioner, LocalProvisioner)
        assert manager.provisioner.pid is not None, "it runs"
        yield cold, run, manager.provisioner.pid
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# In a process of its own, because forking this one, with its threads and gRPC, would measure something else.
_FORKS = """
import gc, os, statistics, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from IPython.core.interactiveshell import InteractiveShell
{preload}
InteractiveShell.instance()
gc.collect(); gc.freeze()

def fork():
    pid = os.fork()
    if pid == 0:
        exec(compile({code!r}, "cell", "exec"), {{}})
        os._exit(0)
    os.waitpid(pid, 0)

for _ in range(20):
    fork()
times = []
for _ in range(200):
    began = time.perf_counter()
    fork()
    times.append(time.perf_counter() - began)
print(statistics.median(times))

# Two processes' worth, one for each core, as sixteen clients would keep them busy.
workers = []
began = time.perf_counter()
for _ in range(os.cpu_count()):
    pid = os.fork()
    if pid == 0:
        for _ in range(300):
            fork()
        os._exit(0)
    workers.append(pid)
for pid in workers:
    os.waitpid(pid, 0)
print((time.perf_counter() - began) / 300 / len(workers))
"""


def forks(code: str, preload: str = "") -> tuple[float, float]:
    """Seconds to fork a warm interpreter that runs `code`: one after the other, and per fork on all cores."""
    script = _FORKS.format(code=code, preload=preload)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    alone, together = (float(line) for line in done.stdout.split())
    return alone, together


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg] # not generic at run time
    def service(self, handler_call_details: Any) -> Any:
        async def echo(requests: Any, context: Any) -> Any:
            async for request in requests:
                yield request

        return grpc.stream_stream_rpc_method_handler(echo)


def _serve_echo(address: str, ready: threading.Event) -> None:
    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Echo(),))
        server.add_insecure_port(address)
        await server.start()
        ready.set()
        await server.wait_for_termination()

    asyncio.run(serve())


def grpc_round_trip(payload: bytes = b"x" * 100, runs: int = 500) -> float:
    """Seconds for a message on an open bidirectional stream over a Unix socket, there and back."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'echo.sock'}"
        script = textwrap.dedent(
            f"""
            import sys, threading
            sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
            from benchmarks.floors import _serve_echo
            class Ready(threading.Event):
                def set(self):
                    print("ready", flush=True)
            _serve_echo({address!r}, Ready())
            """
        )
        server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            return asyncio.run(_ping(address, payload, runs))
        finally:
            server.kill()
            server.wait()


async def _ping(address: str, payload: bytes, runs: int) -> float:
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/echo/Echo", None, None)(None)
        for _ in range(runs):
            began = time.perf_counter()
            await call.write(payload)
            await call.read()
            times.append(time.perf_counter() - began)
        await call.done_writing()
    return statistics.median(times)


def docker_kill(image: str) -> float:
    """Seconds to kill an idle container."""
    import docker

    client = docker.from_env()
    times = []
    for _ in range(5):
        container = client.containers.run(
            image, entrypoint=["sleep", "600"], detach=True, network_mode="none", auto_remove=True
        )
        began = time.perf_counter()
        container.kill()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def through_a_pipe(size: int) -> float:
    """Seconds for so many bytes from a child process through a pipe."""
    script = f"import sys; sys.stdout.write('x' * {size})"
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while child.stdout.read(1 << 20):
            pass
    return time.perf_counter() - began


def in_parallel(work: Callable[[], object], clients: int, runs: int) -> float:
    """Seconds per call when so many threads call at once."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(runs):
        waiting.put(number)

    def client() -> None:
        while True:
            try:
                waiting.get_nowait()
            except queue.Empty:
                return
            work()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    return (time.perf_counter() - began) / runs
