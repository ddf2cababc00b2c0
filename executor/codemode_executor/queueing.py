"""Waiting for a place, fairly between owners."""

import asyncio
from collections import OrderedDict, deque
from typing import Any

from codemode_executor.errors import OverloadedError
from codemode_executor.owner import Owner


class FairQueue:
    """Owners take turns; within an owner, first come, first served.

    Args:
        max_waiting: Most that may wait, over all owners.
        max_waiting_per_owner: Most that may wait of one owner.
    """

    def __init__(self, max_waiting: int, max_waiting_per_owner: int) -> None:
        self._waiting: OrderedDict[Owner, deque[asyncio.Future[None]]] = OrderedDict()
        self._count = 0
        self._max = max_waiting
        self._max_per_owner = max_waiting_per_owner

    def __len__(self) -> int:
        return self._count

    async def wait(self, owner: Owner, unless: "asyncio.Future[Any] | None" = None) -> None:
        """Wait for a turn.

        Args:
            owner: Who waits.
            unless: Ends the waiting when it is done, so that who gave up holds no place.

        Raises:
            OverloadedError: Too many wait already, of all owners or of this one.
            asyncio.CancelledError: `unless` is done.
        """
        if self._count >= self._max:
            raise self._full("max_queue", self._max)
        if len(self._waiting.get(owner, ())) >= self._max_per_owner:
            raise self._full("max_queue_per_owner", self._max_per_owner)
        mine = self._waiting.setdefault(owner, deque())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.append(turn)
        self._count += 1

        def give_up(_: object) -> None:
            turn.cancel()

        if unless is not None:
            unless.add_done_callback(give_up)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The turn came at the same moment: somebody else shall have it.
                self.wake()
            elif turn in mine:
                mine.remove(turn)
                self._count -= 1
                if not mine:
                    self._waiting.pop(owner, None)
            raise
        finally:
            if unless is not None:
                unless.remove_done_callback(give_up)

    def wake(self) -> None:
        """Give the next owner its turn."""
        while self._waiting:
            owner, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            self._count -= 1
            if turns:
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
            # One who was cancelled a moment ago has had no time yet to leave.
            if not turn.done():
                turn.set_result(None)
                return

    def _full(self, name: str, limit: int) -> OverloadedError:
        return OverloadedError(
            f"{name}: {limit:,} executions are waiting for a sandbox already; try again a little later",
            retry_after_ms=500,
        )
