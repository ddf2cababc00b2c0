"""The event loop that a session's `await` runs on, kept between cells."""

import asyncio
import selectors
from collections.abc import Coroutine
from types import FrameType
from typing import Any


class CellLoop:
    """Runs the coroutines of cells, and what they left behind while the session waits."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self.cancelled = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell to its end; IPython calls this for code that awaits."""
        # Made here and not before a fork: processes cannot share a loop's selector.
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.cancelled = False
        self._task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(self._task)
        except KeyboardInterrupt:
            # Else the interrupted cell would go on while the session waits for the next.
            self._task.cancel()
            self._loop.run_until_complete(asyncio.wait([self._task]))
            raise
        finally:
            self._task = None

    def interrupt(self, frame: FrameType | None) -> bool:
        """Cancel the cell where it awaits; False when it computes, and must be interrupted there."""
        if self._loop is None or self._task is None or self._task.done() or frame is None:
            return False
        if frame.f_code.co_filename != selectors.__file__:
            return False
        self.cancelled = True
        # Threadsafe, because that wakes the selector, which goes on waiting when a handler returns.
        self._loop.call_soon_threadsafe(self._task.cancel)
        return True

    def run_until_readable(self, descriptor: int) -> None:
        """Let tasks that cells left behind go on until there is something to read."""
        loop = self._loop
        if loop is None or loop.is_closed() or not asyncio.all_tasks(loop):
            return
        readable = loop.create_future()

        def wake() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(descriptor, wake)
        try:
            loop.run_until_complete(readable)
        finally:
            loop.remove_reader(descriptor)
