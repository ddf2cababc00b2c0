"""The SDK's own event loop, on a thread of its own.

A gRPC channel belongs to one event loop, but the SDK is called from any: from
plain code, from many loops, from a notebook whose loop is running and blocked.
So all traffic happens here, once per process, and callers of every kind hand
work over and wait in their own way. No call starts a loop.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_owner = 0


def sdk_loop() -> asyncio.AbstractEventLoop:
    """The running event loop; started at the first call in this process."""
    global _loop, _thread, _owner
    with _lock:
        # After a fork the thread is not there any more.
        if _loop is None or _owner != os.getpid():
            loop = asyncio.new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            thread = threading.Thread(target=loop.run_forever, name="codemode", daemon=True)
            thread.start()
            started.wait()
            _loop, _thread, _owner = loop, thread, os.getpid()
        return _loop


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the SDK's loop."""
    return asyncio.run_coroutine_threadsafe(work, sdk_loop())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the SDK's loop and wait for it, from any other thread.

    Raises:
        RuntimeError: This is the SDK's loop, see `check_may_wait`.
    """
    try:
        check_may_wait()
    except RuntimeError:
        work.close()
        raise
    return submit(work).result()


def check_may_wait() -> None:
    """Make sure that this thread may wait for the SDK's loop.

    Raises:
        RuntimeError: It is the loop's own thread, which would wait for itself for ever:
            a coroutine tool, called by synchronous code, runs here.
    """
    if threading.current_thread() is _thread:
        raise RuntimeError(
            "a coroutine tool cannot wait for the executor without blocking itself; "
            "await the asynchronous form of the call, such as execute_async()"
        )


async def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the SDK's loop and await it on the caller's."""
    return await asyncio.wrap_future(submit(work))
