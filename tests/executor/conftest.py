"""The service as any gRPC client sees it, and the runner inside a sandbox without a sandbox around it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_proto.v1 import executor_pb2 as pb
from codemode_proto.v1.executor_pb2_grpc import ExecutorStub

from codemode.local import LocalExecutor

if TYPE_CHECKING:
    from codemode_proto.v1.executor_pb2_grpc import ExecutorStub as Stub


class RawClient:
    """Speaks the wire contract, and says whatever a test wants to say.

    Args:
        url: A gRPC target.
        key: The API key, sent as a bearer token; empty for none.
    """

    def __init__(self, url: str, key: str, options: Any = ()) -> None:
        self.channel = grpc.insecure_channel(
            url.removeprefix("http://"), options=[("grpc.use_local_subchannel_pool", 1), *options]
        )
        self.stub: Stub = ExecutorStub(self.channel)
        self.metadata = (("authorization", f"Bearer {key}"),) if key else ()

    def call(self, method: str, request: Any, *, seconds: float = 20) -> Any:
        """Make a unary call."""
        return getattr(self.stub, method)(request, timeout=seconds, metadata=self.metadata)

    def execute(self, *requests: pb.ExecuteRequest, seconds: float = 20) -> list[pb.ExecuteEvent]:
        """Send requests, and return every event until the stream ends, batches taken apart."""
        stream = self.stub.Execute(iter(requests), timeout=seconds, metadata=self.metadata)
        return [each for event in stream for each in (event.batch or [event])]

    def start(self, code: str = "1", **fields: Any) -> pb.ExecuteRequest:
        """A request that begins an execution, of a new id if none is given."""
        return pb.ExecuteRequest(
            start=pb.Start(**{"execution_id": secrets.token_hex(16), "code": code, **fields})
        )

    def run(self, code: str = "1", **fields: Any) -> pb.Finished:
        """Run code, and return how it ended."""
        return self.execute(self.start(code, **fields))[-1].finished

    def refusal(self, function: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
        """The status and the words with which a request is refused."""
        with pytest.raises(grpc.RpcError) as caught:
            function()
        return caught.value.code(), caught.value.details()

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()


def context(**variables: Any) -> pb.Context:
    """A context as the wire carries it."""
    return pb.Context(variables_json=json.dumps(variables))


MakeRawClient = Callable[..., RawClient]


@pytest.fixture
def dial() -> Iterator[MakeRawClient]:
    """Make a client of an address, or of an executor with its key; it is closed after the test."""
    made: list[RawClient] = []

    def make(target: LocalExecutor | str, key: str | None = None, **options: Any) -> RawClient:
        url = target if isinstance(target, str) else target.url
        if key is None:
            key = target.api_key if isinstance(target, LocalExecutor) else ""
        made.append(RawClient(url, key, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def raw(executor: LocalExecutor, dial: MakeRawClient) -> RawClient:
    """A client of the shared executor."""
    return dial(executor)


@pytest.fixture
def session_id(raw: RawClient) -> Iterator[str]:
    """An open session of the shared executor."""
    name = secrets.token_hex(16)
    raw.call("OpenSession", pb.OpenSessionRequest(session_id=name))
    yield name
    raw.call("CloseSession", pb.CloseSessionRequest(session_id=name))
