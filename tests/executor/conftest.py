"""The service as any gRPC client sees it, and the runner inside a sandbox without a sandbox around it."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import codemode_sandbox
import grpc
import pytest
from codemode_proto.v1 import executor_pb2 as pb
from codemode_proto.v1.executor_pb2_grpc import ExecutorStub
from codemode_sandbox.frames import (
    INTERPRETER_CHANNEL,
    LinkFrame,
    LinkKind,
    LinkReader,
    Message,
    MessageKind,
    MessageReader,
    pack_data,
    pack_link,
    pack_message,
)
from codemode_sandbox.settings import Settings

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
        return caught.value.code(), caught.value.details() or ""

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


ServeHere = Callable[..., None]


@pytest.fixture
def serve_here(tmp_path: Path) -> ServeHere:
    """Serve an executor on a thread of this process, and call a test with its address and key."""
    from codemode_executor.auth import Authenticator
    from codemode_executor.config import ExecutorConfig
    from codemode_executor.server import running

    def serve_here(test: Callable[[str, str], None], **settings: Any) -> None:
        ready, done = threading.Event(), threading.Event()
        key = "a-key-of-these-tests-alone"
        config = ExecutorConfig(listen=f"unix:{tmp_path / 'executor.sock'}", backend="bubblewrap", **settings)

        async def serve() -> None:
            async with running(config, Authenticator({"tests": key})):
                ready.set()
                await asyncio.to_thread(done.wait, 60)

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(20)
            test(config.listen, key)
        finally:
            done.set()
            thread.join(20)
        assert not thread.is_alive()

    return serve_here


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


# --- the runner ---------------------------------------------------------------------------------------

RUNNER = "import sys; sys.path.append({folder!r}); from codemode_sandbox.__main__ import main; main()"


@dataclass
class Outcome:
    """What an interpreter said while it ran one piece of code."""

    messages: list[Message] = field(default_factory=list)
    links: list[LinkFrame] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        return self.messages[-1].head

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.report["error"]
        return error

    @property
    def result(self) -> str:
        assert self.report["ok"], self.report["error"]["traceback"]
        return self.messages[-1].body[: self.report["result"]].decode()

    @property
    def value(self) -> Any:
        data = self.messages[-1].body[self.report["result"] :]
        return json.loads(data) if self.report["has_value"] else None

    def printed(self, stream: str = "stdout") -> str:
        """What it printed, by Python or through the descriptor."""
        kind = LinkKind.STDOUT if stream == "stdout" else LinkKind.STDERR
        said = b"".join(
            m.body for m in self.messages if m.kind == MessageKind.OUTPUT and m.head["stream"] == stream
        )
        return (b"".join(frame.payload for frame in self.links if frame.kind == kind) + said).decode()

    def displays(self, kind: str = "display_data") -> list[dict[str, Any]]:
        return [
            json.loads(m.body)
            for m in self.messages
            if m.kind == MessageKind.DISPLAY and m.head["kind"] == kind
        ]


class Runner:
    """The supervisor as a plain process: what runs inside a sandbox, without the sandbox.

    Args:
        folder: Where its working directory and its home will be.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        place = folder / "tmp"
        chosen = Settings(
            site=(sysconfig.get_path("purelib"),),
            work=str(place / "work"),
            home=str(place / "home"),
            wipe=(str(place),),
            limits={"memory_bytes": 512 << 20},
            environment={
                "HOME": str(place / "home"),
                "IPYTHONDIR": str(folder / "ipython"),
                "PATH": "/usr/bin:/bin",
                "CODEMODE_PACKAGE_HINT": "Ask for it.",
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            },
            **settings,
        )
        program = RUNNER.format(folder=str(Path(codemode_sandbox.__file__).parents[1]))
        self.work = Path(chosen.work)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, chosen.to_json()],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
        )
        theirs.close()
        self._sock = ours
        self._links = LinkReader()
        self._messages = MessageReader()
        self._frames: list[LinkFrame] = []
        self.boot = json.loads(self.next_link(LinkKind.READY).payload)

    def _next_frame(self) -> LinkFrame:
        while not self._frames:
            data = self._sock.recv(1 << 18)
            assert data, "the supervisor ended"
            self._frames.extend(self._links.feed(data))
        return self._frames.pop(0)

    def next_link(self, kind: LinkKind) -> LinkFrame:
        """Wait for a frame of the supervisor's own, and drop what comes before."""
        while (frame := self._next_frame()).kind != kind:
            pass
        return frame

    def send(self, kind: int, head: dict[str, Any] | None = None, body: bytes = b"") -> None:
        """Send the interpreter a message."""
        self._sock.sendall(pack_data(INTERPRETER_CHANNEL, pack_message(kind, head, body)))

    def interrupt(self) -> None:
        """Have SIGINT sent to the interpreter."""
        self._sock.sendall(pack_link(LinkKind.INTERRUPT, INTERPRETER_CHANNEL))

    def run(
        self, code: str, on_message: Callable[[Message], None] = lambda message: None, **head: Any
    ) -> Outcome:
        """Run code, and return what was said until its report or its end."""
        self.send(MessageKind.EXECUTE, {"tools": None, **head}, code.encode())
        outcome = Outcome()
        while True:
            frame = self._next_frame()
            if frame.kind != LinkKind.DATA:
                outcome.links.append(frame)
                if frame.kind == LinkKind.EXITED:
                    return outcome
                continue
            for message in self._messages.feed(frame.payload):
                outcome.messages.append(message)
                on_message(message)
                if message.kind == MessageKind.DONE:
                    return outcome

    def answering(self, tools: dict[str, Callable[..., Any]]) -> Callable[[Message], None]:
        """Answers calls of these tools, and questions about them, as the executor passes the caller's on."""

        def answer(message: Message) -> None:
            if message.kind == MessageKind.TOOL_CALL:
                arguments = json.loads(message.body)
                try:
                    value = tools[message.head["name"]](*arguments["args"], **arguments["kwargs"])
                except Exception as error:  # noqa: BLE001 - as the SDK does
                    head = {"id": message.head["id"], "type": type(error).__name__, "message": str(error)}
                    self.send(MessageKind.TOOL_ANSWER, head)
                else:
                    self.send(MessageKind.TOOL_ANSWER, {"id": message.head["id"]}, json.dumps(value).encode())
            elif message.kind == MessageKind.SCHEMA_REQUEST:
                wanted = message.head["name"]
                described = [describe(name, tool) for name, tool in tools.items() if wanted in ("", name)]
                body = json.dumps(described).encode()
                self.send(MessageKind.SCHEMA_ANSWER, {"id": message.head["id"]}, body)

        return answer

    def reset(self) -> bool:
        """Kill and empty everything, as after a stateless execution; whether it worked."""
        self._sock.sendall(pack_link(LinkKind.RESET, 0, b"token"))
        words = json.loads(self.next_link(LinkKind.CLEAN).payload)
        assert words["token"] == "token"
        self._messages = MessageReader()
        return bool(words["clean"])

    def close(self) -> None:
        """Close the link, which ends the supervisor and all it started."""
        self._sock.close()
        self.process.wait(10)


def describe(name: str, tool: Callable[..., Any]) -> dict[str, Any]:
    """A tool as the caller's registry would describe it, of its name, its docstring and its parameters."""
    kinds = {int: "integer", str: "string", float: "number"}
    parameters = inspect.signature(tool, eval_str=True).parameters.values()
    properties: dict[str, Any] = {
        parameter.name: {"type": kinds.get(parameter.annotation, "string")}
        | ({} if parameter.default is parameter.empty else {"default": parameter.default})
        for parameter in parameters
    }
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return {
        "name": name,
        "description": inspect.getdoc(tool) or "",
        "signature": str(inspect.signature(tool, eval_str=True)),
        "input_schema": {"type": "object", "properties": properties, "required": required},
        "output_schema": None,
    }


@pytest.fixture(scope="module")
def module_runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    started = Runner(tmp_path_factory.mktemp("runner"))
    yield started
    started.close()


@pytest.fixture
def runner(module_runner: Runner) -> Runner:
    """A runner with a fresh interpreter."""
    assert module_runner.reset()
    return module_runner
