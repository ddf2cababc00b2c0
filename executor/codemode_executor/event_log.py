"""The numbered events of one execution, kept for whoever follows it now or comes back later."""

import asyncio
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import ServiceError

# What an event costs in memory here, however little is in it.
_EVENT_BYTES = 512
# Text of one event, in characters.
_PIECE = 65_536


class EventLog:
    """Events from number 1 on, and who waits for more of them.

    Attributes:
        events: All of them; text of the last one may still be growing, see `events_after`.
        size: Bytes of memory that they take, about.
    """

    def __init__(self) -> None:
        self.events: list[pb.ExecuteEvent] = []
        self.size = 0
        # Pieces of the last event's text, while nobody was handed it: many small ones become one event.
        self._growing: list[str] = []
        self._growing_length = 0
        self._changed: asyncio.Future[None] | None = None
        self._awake = False
        self._refusal: ServiceError | None = None

    # --- writing --------------------------------------------------------------------------------

    def record(self, **message: Any) -> pb.ExecuteEvent:
        """Add an event that nobody need hear of before the next one."""
        self._settle()
        event = pb.ExecuteEvent(number=len(self.events) + 1, **message)
        self.events.append(event)
        self.size += event.ByteSize() + _EVENT_BYTES
        return event

    def emit(self, **message: Any) -> pb.ExecuteEvent:
        """Add an event, and wake who waits for one."""
        event = self.record(**message)
        self.wake()
        return event

    def wake(self) -> None:
        """What is there is worth a message."""
        self._awake = True
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def has_room_for_text(self, stream: pb.Output.Stream.ValueType) -> bool:
        """Whether the last event is text of this stream that can still grow."""
        return (
            bool(self._growing) and self.events[-1].output.stream == stream and self._growing_length < _PIECE
        )

    def add_text(self, stream: pb.Output.Stream.ValueType, text: str) -> None:
        """Add text to the last event if it has room for it, else to a new one."""
        if not self.has_room_for_text(stream):
            self.emit(output=pb.Output(stream=stream))
            self._growing_length = 0
        self._growing.append(text)
        self._growing_length += len(text)
        self.size += len(text)

    def replace(self, event: pb.ExecuteEvent, by: int) -> None:
        """Put an event in the place of the one of its number, which takes `by` bytes less."""
        self.events[event.number - 1] = event
        self.size -= by

    def refuse(self, error: ServiceError) -> None:
        """There will be no events: whoever waits is told why."""
        self._refusal = error
        self.wake()

    def _settle(self) -> None:
        """Give the last event the text that it has so far; it grows no more."""
        if self._growing:
            # At once: a message never frees what its fields held before.
            self.events[-1].output.text = "".join(self._growing)
            self._growing = []

    # --- reading --------------------------------------------------------------------------------

    async def wait_after(self, number: int) -> None:
        """Wait until there is an event with a number above `number` that is worth a message.

        Raises:
            ServiceError: There will be none, because nothing was run.
        """
        while self._refusal is None and (len(self.events) <= number or not self._awake):
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
        if self._refusal is not None:
            raise self._refusal

    def events_after(self, number: int, max_bytes: int) -> list[pb.ExecuteEvent]:
        """The events after a number, as many as fit, but at least one."""
        self._settle()
        size, end = 0, number
        while end < len(self.events):
            size += self.events[end].ByteSize()
            if size > max_bytes and end > number:
                break
            end += 1
        return self.events[number:end]
