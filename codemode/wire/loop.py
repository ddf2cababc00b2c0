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
_owner = 0


def sdk_loop() -> asyncio.AbstractEventLoop:
    """The running event loop; started at the first call in this process."""
    global _loop, _owner
    with _lock:
        # After a fork the thread is not there any more.
        if _loop is None or _owner != os.getpid():
            loop = asyncio.new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            threading.Thread(target=loop.run_forever, name="codemode", daemon=True).start()
            started.wait()
            _loop, _owner = loop, os.getpid()
        return _loop


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the SDK's loop."""
    return asyncio.run_coroutine_threadsafe(work, sdk_loop())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the SDK's loop and wait for it, from any other thread."""
    return submit(work).result()


async def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the SDK's loop and await it on the caller's."""
    return await asyncio.wrap_future(submit(work))
