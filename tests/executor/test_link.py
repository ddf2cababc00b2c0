"""The executor's end of the stream to a sandbox shares the event loop with everybody else."""

from __future__ import annotations

import asyncio
import socket

from codemode_executor.link import SandboxLink
from codemode_sandbox.frames import (
    INTERPRETER_CHANNEL,
    LinkKind,
    Message,
    MessageKind,
    pack_data,
    pack_link,
    pack_message,
)

MESSAGES = 60_000


class Listener:
    """Counts what it hears, and after which turns of the event loop it heard it."""

    def __init__(self) -> None:
        self.turn = 0
        self.heard: list[int] = []
        self.turns: set[int] = set()
        self.exits: list[int] = []

    def on_message(self, message: Message) -> None:
        self.heard.append(message.head["n"])
        self.turns.add(self.turn)

    def on_output(self, stream: str, data: bytes) -> None:
        raise AssertionError

    def on_exit(self, exit_code: int, killed_for: str | None) -> None:
        self.exits.append(len(self.heard))

    def on_violation(self, reason: str) -> None:
        raise AssertionError(reason)

    def on_lost(self) -> None:
        self.lost = True


async def listen(said: bytes) -> Listener:
    """What a channel's user hears when a supervisor says this and ends."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    link, listener = SandboxLink(), Listener()
    link.attach(INTERPRETER_CHANNEL, listener)
    ours.setblocking(False)
    theirs.setblocking(False)
    await loop.create_connection(lambda: link, sock=ours)

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            listener.turn += 1

    counting = asyncio.ensure_future(count_turns())
    await loop.sock_sendall(theirs, said)
    theirs.close()
    await link.closed
    counting.cancel()
    return listener


def test_a_flood_of_messages_is_heard_in_order_and_whole_while_others_have_their_turns() -> None:
    messages = b"".join(pack_message(MessageKind.DISPLAY, {"n": n}) for n in range(MESSAGES))
    exited = pack_link(LinkKind.EXITED, INTERPRETER_CHANNEL, b'{"exit_code": 0, "killed_for": null}')
    listener = asyncio.run(listen(pack_data(INTERPRETER_CHANNEL, messages) + exited))
    assert listener.heard == list(range(MESSAGES))
    assert listener.exits == [MESSAGES]
    assert listener.lost
    # Taken in as they arrive, they would come in as many turns as the socket gives pieces, which is a dozen.
    assert len(listener.turns) > 40
