"""Files in and out of a session's working directory."""

import asyncio
from collections.abc import AsyncIterator

from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import FILE_PIECE, FILE_WINDOW, Message, MessageKind

from codemode_executor.errors import InvalidRequestError, NotFoundError, SandboxDiedError
from codemode_executor.link import SandboxLink

ANSWER_SECONDS = 10.0


class Answers:
    """A channel user that keeps what it is told until somebody asks for it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message | str] = asyncio.Queue()

    def on_message(self, message: Message) -> None:
        """Keep it."""
        self._messages.put_nowait(message)

    def on_output(self, stream: str, data: bytes) -> None:
        """Nobody listens."""

    def on_exit(self, exit_code: int, killed_for: str | None) -> None:
        """No answer will come."""
        self._messages.put_nowait(f"the process ended ({killed_for or exit_code})")

    def on_violation(self, reason: str) -> None:
        """No answer will come."""
        self._messages.put_nowait(reason)

    def on_lost(self) -> None:
        """No answer will come."""
        self._messages.put_nowait("the sandbox ended")

    async def next(self) -> Message:
        """The next message.

        Raises:
            SandboxDiedError: None will come, or none came in time.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                message = await self._messages.get()
        except TimeoutError:
            raise SandboxDiedError("the sandbox did not answer in time") from None
        if isinstance(message, str):
            raise SandboxDiedError(message)
        return message


async def put_file(
    link: SandboxLink, start: pb.PutFileStart, pieces: AsyncIterator[bytes]
) -> pb.PutFileResponse:
    """Write a file in the working directory.

    Raises:
        InvalidRequestError: The path leads out, there is no room, or fewer or more bytes came than said.
    """
    answers = Answers()
    channel = link.open_channel(answers)
    try:
        link.send(channel, MessageKind.PUT, {"path": start.path, "size": start.size})
        sent, under_way = 0, 0
        async for data in pieces:
            for begin in range(0, len(data), FILE_PIECE):
                piece = data[begin : begin + FILE_PIECE]
                sent += len(piece)
                if sent > start.size:
                    raise InvalidRequestError(f"size: more bytes came than the {start.size:,} announced")
                if under_way >= FILE_WINDOW:
                    _raise_for_error(await answers.next())
                    under_way -= 1
                link.send(channel, MessageKind.CHUNK, None, piece)
                under_way += 1
        if sent < start.size:
            raise InvalidRequestError(f"size: {sent:,} bytes came of the {start.size:,} announced")
        while True:
            message = await answers.next()
            _raise_for_error(message)
            if message.kind == MessageKind.FILE_DONE:
                return pb.PutFileResponse(size=int(message.head["size"]), sha256=str(message.head["sha256"]))
    finally:
        link.close_channel(channel)


async def get_file(link: SandboxLink, path: str, max_bytes: int) -> AsyncIterator[pb.GetFileResponse]:
    """Read a file of the working directory.

    Raises:
        NotFoundError: There is none, or it cannot be read.
        SandboxDiedError: More bytes came than were announced, or than may come.
    """
    answers = Answers()
    channel = link.open_channel(answers)
    try:
        link.send(channel, MessageKind.GET, {"path": path})
        announced, received = 0, 0
        while True:
            message = await answers.next()
            _raise_for_error(message)
            if message.kind == MessageKind.FILE_DONE:
                return
            if message.kind == MessageKind.FILE_STARTED:
                announced = min(int(message.head["size"]), max_bytes)
                yield pb.GetFileResponse(start=pb.GetFileStart(size=announced))
            else:
                received += len(message.body)
                if received > announced:
                    raise SandboxDiedError("the file is longer than it was said to be")
                yield pb.GetFileResponse(chunk=message.body)
                # The caller has it: the sandbox may send another.
                link.send(channel, MessageKind.CHUNK)
    finally:
        link.close_channel(channel)


def _raise_for_error(message: Message) -> None:
    error = message.head.get("error")
    if error is not None:
        text = str(error)[:1000]
        raise (NotFoundError if "No such file" in text else InvalidRequestError)(text)
