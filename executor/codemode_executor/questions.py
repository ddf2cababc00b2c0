"""Questions about code to a session's idle interpreter, whose answers are hostile."""

import json
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb
from codemode_sandbox.frames import INTERPRETER_CHANNEL, MessageKind

from codemode_executor.errors import InvalidRequestError, SandboxDiedError
from codemode_executor.link import SandboxLink
from codemode_executor.transfers import Answers

MAX_MATCHES = 1000
MAX_TEXT = 1000


async def complete(link: SandboxLink, request: pb.CompleteRequest, max_code: int) -> pb.CompleteResponse:
    """What could stand at the cursor.

    Raises:
        InvalidRequestError: The code is too long.
        SandboxDiedError: There was no answer, or none that makes sense.
    """
    head = {"cursor": request.cursor}
    answer, found = await _ask(link, MessageKind.COMPLETE, head, request.code, max_code)
    matches = [
        pb.Completion(**{name: str(item.get(name, ""))[:MAX_TEXT] for name in ("text", "type", "signature")})
        for item in (found if isinstance(found, list) else [])[:MAX_MATCHES]
        if isinstance(item, dict)
    ]
    start, end = (_position(answer.get(name), len(request.code)) for name in ("start", "end"))
    return pb.CompleteResponse(matches=matches, cursor_start=start, cursor_end=end)


async def inspect(link: SandboxLink, request: pb.InspectRequest, max_code: int) -> pb.InspectResponse:
    """What is known of the name at the cursor; raises as `complete` does."""
    head = {"cursor": request.cursor, "detail": request.detail_level}
    answer, data = await _ask(link, MessageKind.INSPECT, head, request.code, max_code)
    return pb.InspectResponse(found=bool(answer.get("found")), data_json=json.dumps(data))


def _position(value: Any, bound: int) -> int:
    return min(max(value, 0), bound) if type(value) is int else 0


async def _ask(
    link: SandboxLink, kind: MessageKind, head: dict[str, Any], code: str, max_code: int
) -> tuple[dict[str, Any], Any]:
    encoded = code.encode("utf-8", "replace")
    if len(encoded) > max_code:
        raise InvalidRequestError(f"code: {len(encoded):,} bytes are above the limit of {max_code:,}")
    answers = Answers()
    link.attach(INTERPRETER_CHANNEL, answers)
    try:
        link.send(INTERPRETER_CHANNEL, kind, head, encoded)
        answer = await answers.next()
        return answer.head, json.loads(answer.body)
    except (ValueError, RecursionError):
        raise SandboxDiedError("the interpreter's answer makes no sense") from None
    finally:
        link.detach(INTERPRETER_CHANNEL)
