"""Who may call, and that keys stay secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_executor.auth import Authenticator, KeyListError, read_keys
from codemode_executor.errors import UnauthenticatedError
from codemode_proto.v1 import executor_pb2 as pb

from codemode import Codemode
from codemode.errors import AuthenticationError

if TYPE_CHECKING:
    from codemode.local import LocalExecutor
    from tests.conftest import MakeClient, MakeExecutor
    from tests.executor.conftest import MakeRawClient, RawClient

ADA, BOB = "the-key-of-ada-lovelace", "the-key-of-bob-builder"
METHODS = [
    ("OpenSession", pb.OpenSessionRequest()),
    ("CloseSession", pb.CloseSessionRequest()),
    ("ListSessions", pb.ListSessionsRequest()),
    ("Complete", pb.CompleteRequest()),
    ("Inspect", pb.InspectRequest()),
    ("Ready", pb.ReadyRequest()),
    ("GetFile", pb.GetFileRequest()),
    ("PutFile", iter([pb.PutFileRequest(start=pb.PutFileStart())])),
    ("Execute", iter([pb.ExecuteRequest(start=pb.Start(execution_id="0" * 32))])),
]


@pytest.mark.parametrize(("method", "request_"), METHODS, ids=[name for name, _ in METHODS])
@pytest.mark.parametrize("key", ["", "a-key-nobody-ever-heard-of"], ids=["no key", "a wrong key"])
def test_every_method_wants_a_key(
    executor: LocalExecutor, dial: MakeRawClient, method: str, request_: Any, key: str
) -> None:
    raw = dial(executor, key)

    def call() -> None:
        answer = raw.call(method, request_)
        if method in ("GetFile", "Execute"):
            next(answer)

    code, details = raw.refusal(call)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert details.startswith("authorization: ")
    assert executor.api_key not in details
    assert not key or key not in details


def test_every_method_of_the_contract_is_in_the_list() -> None:
    assert {name for name, _ in METHODS} == set(pb.DESCRIPTOR.services_by_name["Executor"].methods_by_name)


@pytest.mark.parametrize(
    "header", ["Basic {key}", "{key}", "Bearer", "Bearer ", "Bearer {key}x", "Token {key}"]
)
def test_another_scheme_is_refused(executor: LocalExecutor, dial: MakeRawClient, header: str) -> None:
    raw = dial(executor, "")
    raw.metadata = (("authorization", header.format(key=executor.api_key)),)
    code, details = raw.refusal(lambda: raw.call("Ready", pb.ReadyRequest()))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert executor.api_key not in details


def test_the_schemes_name_is_read_without_regard_to_case(
    executor: LocalExecutor, dial: MakeRawClient
) -> None:
    raw = dial(executor, "")
    raw.metadata = (("authorization", f"bearer {executor.api_key}"),)
    assert raw.call("Ready", pb.ReadyRequest()).ready


def test_a_wrong_key_is_told_apart_by_the_sdk(executor: LocalExecutor, connect: MakeClient) -> None:
    with pytest.raises(AuthenticationError, match="not known to this executor"):
        connect(executor, "a-key-nobody-ever-heard-of").execute("1")


def test_identities_do_not_share_sessions_or_executions(
    start_executor: MakeExecutor, connect: MakeClient, dial: MakeRawClient, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# who may call\n\nada: {ADA}\n bob :  {BOB}  \n")
    executor = start_executor(api_keys_file=keys)
    ada, bob = dial(executor, ADA), dial(executor, BOB)
    name = "5" * 32
    mine = ada.call("OpenSession", pb.OpenSessionRequest(session_id=name))
    assert [s.session_id for s in ada.call("ListSessions", pb.ListSessionsRequest()).sessions] == [name]
    assert not bob.call("ListSessions", pb.ListSessionsRequest()).sessions
    for call in (
        lambda: bob.run("1", session_id=name),
        lambda: bob.call("Complete", pb.CompleteRequest(session_id=name)),
        lambda: bob.call("OpenSession", pb.OpenSessionRequest(session_id=name)),
    ):
        status, details = bob.refusal(call)
        assert status is grpc.StatusCode.NOT_FOUND
        assert details == "session_id: there is no such session; open one first"
    assert not bob.call("CloseSession", pb.CloseSessionRequest(session_id=name)).closed
    assert ada.run("1", session_id=name).success
    code = "import os; os.urandom(8).hex()"
    assert ada.run(code, execution_id=name).result != bob.run(code, execution_id=name).result
    assert connect(executor, BOB).run("1").sandbox_id != mine.sandbox_id


# --- lists of keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"ada {ADA}", "line 1"),
        (f"\n: {ADA}", "line 2"),
        ("ada:", "line 1"),
        (f"ada: {ADA}\nada: {BOB}", "line 2: 'ada' was named before"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_no_key_is_shown(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(KeyListError, match=words) as caught:
        read_keys(path)
    assert ADA not in str(caught.value)
    assert BOB not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "no API key"),
        ({"ada": "too-short"}, "'ada' is shorter than 16"),
        ({"ada": ADA, "bob": ADA}, "two identities have the same"),
    ],
)
def test_keys_that_protect_nothing_are_refused_and_not_shown(keys: dict[str, str], words: str) -> None:
    with pytest.raises(KeyListError, match=words) as caught:
        Authenticator(keys)
    assert not any(key in str(caught.value) for key in keys.values())


def test_only_digests_of_keys_are_kept() -> None:
    assert ADA not in repr(vars(Authenticator({"ada": ADA})))
    assert ADA.encode() not in Authenticator({"ada": ADA})._digests.values()


def test_an_identity_is_found_by_its_key_alone() -> None:
    authenticator = Authenticator({"ada": ADA, "bob": BOB})
    assert authenticator.identify([("x", "y"), ("authorization", f"Bearer {BOB}")]) == "bob"
    assert authenticator.identify([("authorization", f"Bearer {ADA}".encode())]) == "ada"
    for header in (f"Bearer {ADA}{BOB}", "Bearer ", "Bearer \ud800"):
        with pytest.raises(UnauthenticatedError):
            authenticator.identify([("authorization", header)])
    with pytest.raises(UnauthenticatedError):
        authenticator.identify([])


def test_the_command_shows_no_key_when_it_refuses_a_list(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ada {ADA}\n")
    done = subprocess.run(
        [sys.executable, "-m", "codemode_executor.cli", "serve", "--api-keys-file", str(keys)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "line 1" in done.stderr
    assert ADA not in done.stderr + done.stdout


def test_an_executor_without_any_key_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codemode_executor.cli", "serve"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 2
    assert "CODEMODE_EXECUTOR_API_KEY" in done.stderr


def test_the_key_is_not_in_the_environment_of_the_executor_or_of_a_sandbox(
    executor: LocalExecutor, codemode: Codemode, raw: RawClient
) -> None:
    code = """
import os, subprocess
result = str(dict(os.environ)) + subprocess.getoutput('env; cat /proc/*/environ /proc/*/cmdline')
"""
    assert executor.api_key not in codemode.execute(code)
    command_line = Path(f"/proc/{executor.pid}/cmdline").read_bytes()
    assert executor.api_key.encode() not in command_line
