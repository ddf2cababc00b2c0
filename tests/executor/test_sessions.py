"""Sessions and the files in them, as any client of the service sees them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_proto.v1 import executor_pb2 as pb

from codemode import Codemode

if TYPE_CHECKING:
    from tests.conftest import MakeExecutor
    from tests.executor.conftest import MakeRawClient, RawClient

Code = grpc.StatusCode


def context(**variables: Any) -> pb.Context:
    return pb.Context(variables_json=json.dumps(variables))


# --- life ---------------------------------------------------------------------------------------------


def test_opening_a_session_again_returns_it(raw: RawClient, session_id: str) -> None:
    raw.run("x = 1", session_id=session_id)
    again = raw.call("OpenSession", pb.OpenSessionRequest(session_id=session_id))
    assert again.session_id == session_id
    assert raw.run("x", session_id=session_id).result == "1"


def test_two_openings_at_once_open_one_session(raw: RawClient) -> None:
    name = secrets.token_hex(16)
    request = pb.OpenSessionRequest(session_id=name)
    futures = [raw.stub.OpenSession.future(request, metadata=raw.metadata, timeout=20) for _ in range(5)]
    assert len({future.result().sandbox_id for future in futures}) == 1
    assert raw.call("CloseSession", pb.CloseSessionRequest(session_id=name)).closed
    assert not raw.call("CloseSession", pb.CloseSessionRequest(session_id=name)).closed


def test_an_id_is_chosen_for_who_gives_none_and_a_bad_one_is_refused(raw: RawClient) -> None:
    opened = raw.call("OpenSession", pb.OpenSessionRequest())
    assert len(opened.session_id) == 32
    assert opened.python_version.startswith("3.")
    assert raw.call("CloseSession", pb.CloseSessionRequest(session_id=opened.session_id)).closed
    code, details = raw.refusal(lambda: raw.call("OpenSession", pb.OpenSessionRequest(session_id="x")))
    assert code is Code.INVALID_ARGUMENT
    assert details.startswith("session_id: ")


def test_the_list_tells_the_owners_sessions_and_which_is_busy(raw: RawClient) -> None:
    mine, others = context(client_id=secrets.token_hex(4)), context(client_id=secrets.token_hex(4))
    names = [secrets.token_hex(16) for _ in range(2)]
    for name in names:
        raw.call("OpenSession", pb.OpenSessionRequest(session_id=name, context=mine))
    done = threading.Event()
    asked = threading.Event()

    def requests() -> Any:
        yield raw.start(
            "tools.wait()", session_id=names[0], context=mine, tools=pb.ToolPolicy(all_registered=True)
        )
        done.wait(10)
        yield pb.ExecuteRequest(tool_answer=pb.ToolAnswer(call_id=1, value=pb.Value(data=b"1")))

    def run() -> None:
        for event in raw.stub.Execute(requests(), timeout=20, metadata=raw.metadata):
            if any(each.HasField("tool_call") for each in event.batch or [event]):
                asked.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert asked.wait(10)
    listed = raw.call("ListSessions", pb.ListSessionsRequest(context=mine)).sessions
    assert {session.session_id: session.busy for session in listed} == {names[0]: True, names[1]: False}
    assert not raw.call("ListSessions", pb.ListSessionsRequest(context=others)).sessions
    done.set()
    thread.join()
    for name in names:
        raw.call("CloseSession", pb.CloseSessionRequest(session_id=name, context=mine))
    assert not raw.call("ListSessions", pb.ListSessionsRequest(context=mine)).sessions


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({"client_id": "b", "user_id": 1}, "client_id"),
        ({"client_id": "a"}, "user_id"),
        ({"client_id": "a", "user_id": "1"}, "user_id"),
        ({"client_id": "a", "user_id": 1, "tenant_id": "t"}, "tenant_id"),
        ({}, "client_id, user_id"),
    ],
)
def test_a_changed_isolation_key_is_refused_by_name(
    raw: RawClient, changed: dict[str, Any], keys: str
) -> None:
    name = secrets.token_hex(16)
    mine = context(client_id="a", user_id=1)
    raw.call("OpenSession", pb.OpenSessionRequest(session_id=name, context=mine))
    calls: list[Any] = [
        lambda: raw.run("1", session_id=name, context=context(**changed)),
        lambda: raw.call("OpenSession", pb.OpenSessionRequest(session_id=name, context=context(**changed))),
        lambda: raw.call("Inspect", pb.InspectRequest(session_id=name, context=context(**changed))),
    ]
    for call in calls:
        code, details = raw.refusal(call)
        assert code is Code.PERMISSION_DENIED
        assert details.startswith(f"context: {keys} changed within a session")
    assert raw.run("1", session_id=name, context=context(client_id="a", user_id=1, more="x")).success
    raw.call("CloseSession", pb.CloseSessionRequest(session_id=name, context=mine))


def test_a_lost_session_tells_why(raw: RawClient) -> None:
    name = secrets.token_hex(16)
    raw.call("OpenSession", pb.OpenSessionRequest(session_id=name))
    finished = raw.run("import os; os._exit(7)", session_id=name)
    assert finished.session == pb.SESSION_LOST
    code, details = raw.refusal(lambda: raw.run("1", session_id=name))
    assert code is Code.FAILED_PRECONDITION
    assert "exit code 7" in details
    assert "open a new one" in details


def test_an_unused_session_is_closed_and_says_so(start_executor: MakeExecutor, dial: MakeRawClient) -> None:
    raw = dial(start_executor(session_idle_seconds=0.4, warm=0))
    opened = raw.call("OpenSession", pb.OpenSessionRequest())
    gone = threading.Event()
    for _ in range(100):
        if not raw.call("ListSessions", pb.ListSessionsRequest()).sessions:
            gone.set()
            break
        # Being asked for is no use of a session; only time ends it.
        gone.wait(0.05)
    assert gone.is_set()
    code, details = raw.refusal(lambda: raw.run("1", session_id=opened.session_id))
    assert code is Code.FAILED_PRECONDITION
    assert "idle for 0.4 seconds" in details


def test_nothing_of_a_closed_session_is_found_by_the_next(raw: RawClient) -> None:
    leave = """
import os, subprocess
open('/tmp/left', 'w').write('x'); open('/dev/shm/left', 'w').write('x'); open('left', 'w').write('x')
subprocess.Popen(['sleep', '1000'])
secret = 1
"""
    look = """
import glob
files = glob.glob('/tmp/left') + glob.glob('/dev/shm/left') + glob.glob('*')
sleeping = sum(b'sleep' in open(path, 'rb').read() for path in glob.glob('/proc/[0-9]*/cmdline'))
result = [files, 'secret' in globals(), sleeping]
"""
    sandboxes = set()
    for _ in range(2):
        opened = raw.call("OpenSession", pb.OpenSessionRequest(context=context(user_id="leaver")))
        name = opened.session_id
        sandboxes.add(opened.sandbox_id)
        found = raw.run(look, session_id=name, context=context(user_id="leaver"))
        assert found.result == "[[], False, 0]"
        assert raw.run(leave, session_id=name, context=context(user_id="leaver")).success
        raw.call("CloseSession", pb.CloseSessionRequest(session_id=name, context=context(user_id="leaver")))
    # It was the same sandbox, so this was a test of its cleaning.
    assert len(sandboxes) == 1


# --- help while typing --------------------------------------------------------------------------------


def test_completion_tells_what_to_replace(raw: RawClient, session_id: str) -> None:
    raw.run("préfix_name = 'é'", session_id=session_id)
    answer = raw.call("Complete", pb.CompleteRequest(session_id=session_id, code="x = préf + 1", cursor=8))
    assert [match.text for match in answer.matches] == ["préfix_name"]
    assert (answer.cursor_start, answer.cursor_end) == (4, 8)


def test_completion_of_anything_is_an_answer(raw: RawClient, session_id: str) -> None:
    for code in ("", "\n\n", "é" * 10, "((((", "import os; os.", "x" * 1000):
        for cursor in (0, 5, 2**32 - 1):
            request = pb.CompleteRequest(session_id=session_id, code=code, cursor=cursor)
            answer = raw.call("Complete", request)
            assert answer.cursor_start <= answer.cursor_end <= len(code)


def test_inspection_explains_a_name(raw: RawClient, session_id: str) -> None:
    raw.run('def greet(name):\n    "Say hello."', session_id=session_id)
    answer = raw.call("Inspect", pb.InspectRequest(session_id=session_id, code="greet", cursor=3))
    assert answer.found
    assert "Say hello." in json.loads(answer.data_json)["text/plain"]
    nothing = raw.call("Inspect", pb.InspectRequest(session_id=session_id, code="unheard_of", cursor=3))
    assert not nothing.found


# --- files --------------------------------------------------------------------------------------------


def put(raw: RawClient, session_id: str, path: str, data: bytes, *, size: int | None = None) -> Any:
    def pieces() -> Any:
        start = pb.PutFileStart(session_id=session_id, path=path, size=len(data) if size is None else size)
        yield pb.PutFileRequest(start=start)
        for begin in range(0, len(data), 1 << 18):
            yield pb.PutFileRequest(chunk=data[begin : begin + (1 << 18)])

    return raw.call("PutFile", pieces())


def get(raw: RawClient, session_id: str, path: str) -> bytes:
    answers = list(raw.call("GetFile", pb.GetFileRequest(session_id=session_id, path=path)))
    data = b"".join(answer.chunk for answer in answers)
    assert answers[0].start.size == len(data)
    return data


def test_the_digest_is_of_what_arrived_inside(raw: RawClient, session_id: str) -> None:
    data = os.urandom(3_000_001)
    answer = put(raw, session_id, "a/b.bin", data)
    assert (answer.size, answer.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert get(raw, session_id, "a/b.bin") == data
    assert get(raw, session_id, "./a/../a/b.bin") == data


OUTSIDE = [
    "../x",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/tmp/x",
    "a/../../x",
    "link/x",
    "link_to_file",
    "/proc/self/mem",
    "",
    ".",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_out_is_refused_for_writing(raw: RawClient, session_id: str, path: str) -> None:
    make = "import os\nos.symlink('/tmp', 'link')\nos.symlink('/tmp/home/x', 'link_to_file')"
    assert raw.run(make, session_id=session_id).success
    code, details = raw.refusal(lambda: put(raw, session_id, path, b"evil"))
    assert code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    assert len(details) < 300
    seen = raw.run("import glob\nglob.glob('/tmp/x') + glob.glob('/tmp/home/x')", session_id=session_id)
    assert seen.result == "[]"


@pytest.mark.parametrize("path", [*OUTSIDE, "to_mem", "to_passwd", "loop", "socket", "folder", "missing"])
def test_a_path_that_leads_out_or_is_no_file_is_refused_for_reading(
    raw: RawClient, session_id: str, path: str
) -> None:
    make = """
import os
os.symlink('/tmp', 'link'); os.symlink('/etc/passwd', 'link_to_file')
os.symlink('/proc/self/mem', 'to_mem'); os.symlink('/etc/passwd', 'to_passwd')
import socket
socket.socket(socket.AF_UNIX).bind('socket'); os.mkdir('folder'); os.symlink('loop', 'loop')
"""
    assert raw.run(make, session_id=session_id).success
    code, details = raw.refusal(lambda: get(raw, session_id, path))
    assert code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    assert "root:" not in details
    assert raw.run("1 + 1", session_id=session_id).result == "2"


def test_a_file_that_is_a_link_within_the_working_directory_is_read(raw: RawClient, session_id: str) -> None:
    raw.run("import os\nopen('real', 'w').write('text')\nos.symlink('real', 'alias')", session_id=session_id)
    assert get(raw, session_id, "alias") == b"text"


def test_a_file_above_the_limit_is_refused_before_it_comes(raw: RawClient) -> None:
    opened = raw.call("OpenSession", pb.OpenSessionRequest(limits=pb.Limits(tmp_bytes=2 << 20)))
    code, details = raw.refusal(lambda: put(raw, opened.session_id, "x", b"", size=3 << 20))
    assert code is Code.INVALID_ARGUMENT
    assert details == "size: 3,145,728 bytes are above tmp_bytes=2,097,152"
    assert raw.run("open('fill', 'wb').write(bytes(1 << 20))", session_id=opened.session_id).success
    code, details = raw.refusal(lambda: put(raw, opened.session_id, "x", bytes(1_500_000)))
    assert code is Code.INVALID_ARGUMENT
    assert "No space left" in details
    assert raw.run("import os; os.listdir()", session_id=opened.session_id).result == "['fill']"
    raw.call("CloseSession", pb.CloseSessionRequest(session_id=opened.session_id))


@pytest.mark.parametrize(("size", "word"), [(10, "fewer"), (3, "more")])
def test_a_size_that_is_not_the_announced_one_leaves_no_file(
    raw: RawClient, session_id: str, size: int, word: str
) -> None:
    code, details = raw.refusal(lambda: put(raw, session_id, "x", b"12345", size=size))
    assert code is Code.INVALID_ARGUMENT
    assert details.startswith("size: ")
    assert f"{size} announced" in details
    # The helper that wrote it ends a moment later.
    waited = """
import os, time
for _ in range(100):
    if not os.listdir(): break
    time.sleep(0.02)
os.listdir()
"""
    assert raw.run(waited, session_id=session_id).result == "[]"


def test_a_transfer_leaves_no_process_behind(raw: RawClient, session_id: str) -> None:
    count = "import glob\nlen(glob.glob('/proc/[0-9]*'))"
    before = int(raw.run(count, session_id=session_id).result)
    for _ in range(5):
        put(raw, session_id, "x", b"12345")
        assert get(raw, session_id, "x") == b"12345"
    settle = "import time\nfor _ in range(100):\n    time.sleep(0.01)"
    raw.run(settle, session_id=session_id)
    assert int(raw.run(count, session_id=session_id).result) == before


def test_many_transfers_left_open_do_not_stop_the_executor(
    start_executor: MakeExecutor, dial: MakeRawClient, connect: Any
) -> None:
    executor = start_executor(warm=0)
    raw = dial(executor)
    opened = raw.call("OpenSession", pb.OpenSessionRequest())
    held = threading.Event()

    def unfinished(number: int) -> Any:
        start = pb.PutFileStart(session_id=opened.session_id, path=f"f{number}", size=10)
        yield pb.PutFileRequest(start=start)
        held.wait(30)

    streams = [
        raw.stub.PutFile.future(unfinished(number), metadata=raw.metadata, timeout=30)
        for number in range(140)
    ]
    try:
        codemode: Codemode = connect(executor, retry_enabled=False, executor_timeout=5)
        for _ in range(20):
            assert codemode.with_context(user_id="another").run("1 + 1").result == "2"
    finally:
        for stream in streams:
            stream.cancel()  # type: ignore[no-untyped-call]
        held.set()
