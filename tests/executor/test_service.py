"""Admission, health, readiness and reflection of the service."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_proto.v1 import executor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from codemode import Codemode
from codemode.errors import ExecutorConnectionError, LimitExceededError

if TYPE_CHECKING:
    from codemode.local import LocalExecutor
    from tests.conftest import MakeClient, MakeExecutor
    from tests.executor.conftest import MakeRawClient, RawClient, ServeHere

SERVICE = "codemode.v1.Executor"

# --- health, readiness, reflection --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", SERVICE])
def test_health_is_told_without_a_key(executor: LocalExecutor, dial: MakeRawClient, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(dial(executor, "").channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_service_has_no_health(raw: RawClient) -> None:
    stub = health_pb2_grpc.HealthStub(raw.channel)
    code, _ = raw.refusal(lambda: stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=5))
    assert code is grpc.StatusCode.NOT_FOUND


def test_readiness_tells_what_code_runs_in(raw: RawClient) -> None:
    answer = raw.call("Ready", pb.ReadyRequest())
    assert answer.ready
    assert (answer.backend, answer.reason) == ("bubblewrap", "")
    assert answer.default_limits.timeout_seconds == 30
    assert answer.default_limits.memory_bytes == 512 << 20
    assert answer.default_limits.cpus == 1
    assert list(answer.isolation_keys) == ["client_id", "tenant_id", "user_id", "session_id"]
    sandbox_limits = {"memory_bytes", "cpus", "processes", "open_files", "tmp_bytes", "tmp_inodes"}
    assert set(answer.enforcement) == sandbox_limits


def list_services(channel: grpc.Channel) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
    return [service.name for service in answer.list_services_response.service]


def test_reflection_is_off_by_default(raw: RawClient) -> None:
    code, _ = raw.refusal(lambda: list_services(raw.channel))
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_is_on_by_option(start_executor: MakeExecutor, dial: MakeRawClient) -> None:
    assert SERVICE in list_services(dial(start_executor(reflection=True, warm=0)).channel)


# --- admission ----------------------------------------------------------------------------------------


class Busy:
    """Executions that hold every sandbox of an executor until they are released."""

    def __init__(self, codemode: Codemode, owner: str) -> None:
        self.begun, self._done = threading.Event(), threading.Event()
        self.results: list[Any] = []
        codemode.registry.register_tool("hold", self._hold)

        def run() -> None:
            codemode.with_context(client_id=owner)
            self.results.append(codemode.run("tools.hold(); result = 'held'"))

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self.begun.wait(10)

    def _hold(self) -> None:
        self.begun.set()
        self._done.wait(30)

    def release(self) -> None:
        self._done.set()
        self._thread.join()
        assert self.results[0].result == "held"


def test_a_full_queue_refuses_with_a_hint_and_the_client_waits_as_long_as_it_says(
    start_executor: MakeExecutor, connect: MakeClient, dial: MakeRawClient
) -> None:
    executor = start_executor(max_sandboxes=1, max_queue=0, warm=0)
    busy = Busy(connect(executor), "busy")
    raw = dial(executor)
    with pytest.raises(grpc.RpcError) as caught:
        raw.run("1", context=pb.Context(variables_json='{"client_id": "other"}'))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing: Any = caught.value.trailing_metadata()
    assert dict(trailing)["retry-after-ms"] == "500"

    began = time.monotonic()
    with pytest.raises(LimitExceededError, match=r"max_queue: 0.*tried 3 times") as refused:
        connect(executor).with_context(client_id="other").run("1")
    assert 1.0 <= time.monotonic() - began < 4
    assert refused.value.status == "RESOURCE_EXHAUSTED"

    # A place that is free by the second try is taken.
    threading.Timer(0.2, busy.release).start()
    assert connect(executor).with_context(client_id="other").execute("1 + 1") == "2"


def test_one_owner_does_not_fill_the_queue_for_all(start_executor: MakeExecutor, connect: MakeClient) -> None:
    executor = start_executor(max_sandboxes=1, max_queue=10, max_queue_per_owner=1, warm=0)
    busy = Busy(connect(executor), "busy")
    greedy = connect(executor, retry_enabled=False).with_context(client_id="greedy")

    async def ask_three_times() -> list[Any]:
        modest = connect(executor, retry_enabled=False)

        async def ask_modestly() -> Any:
            modest.with_context(client_id="modest")
            return await modest.run_async("'modest'")

        asked = [asyncio.create_task(greedy.run_async("'greedy'")) for _ in range(2)]
        # One of the two is refused at once, which tells that the other waits.
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert isinstance(refused.exception(), LimitExceededError)
        modestly = asyncio.create_task(ask_modestly())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(busy.release)
        return [result.result for result in await asyncio.gather(*(set(asked) - done), modestly)]

    assert asyncio.run(ask_three_times()) == ["greedy", "modest"]


def test_those_who_gave_up_waiting_leave_the_queue(start_executor: MakeExecutor, connect: MakeClient) -> None:
    executor = start_executor(max_sandboxes=1, max_queue=2, warm=0)
    busy = Busy(connect(executor), "busy")
    codemode = connect(executor, retry_enabled=False)

    async def give_up_and_come_back() -> str:
        codemode.with_context(client_id="impatient")
        for _ in range(3):
            asked = [asyncio.create_task(codemode.run_async("1")) for _ in range(2)]
            await asyncio.sleep(0.15)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(0.15)
        waiting = asyncio.create_task(codemode.execute_async("'served'"))
        await asyncio.sleep(0.15)
        await asyncio.to_thread(busy.release)
        return await waiting

    assert asyncio.run(give_up_and_come_back()) == "served"


# --- what only an executor in this process shows --------------------------------------------------------


def test_a_client_that_says_nothing_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, serve_here: ServeHere, dial: MakeRawClient
) -> None:
    monkeypatch.setattr("codemode_executor.conversation.FIRST_MESSAGE_SECONDS", 0.3)

    def test(url: str, key: str) -> None:
        raw = dial(url, key)
        silent = threading.Event()

        def nothing() -> Any:
            silent.wait(20)
            yield from ()

        stream = raw.stub.Execute(nothing(), timeout=20, metadata=raw.metadata)
        began = time.monotonic()
        code, details = raw.refusal(lambda: list(stream))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details == "start: nothing came within 0.3 seconds"
        assert time.monotonic() - began < 5
        silent.set()

    serve_here(test, warm=0)


def test_a_machine_that_cannot_start_a_sandbox_now_is_told_from_one_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, serve_here: ServeHere, dial: MakeRawClient
) -> None:
    from codemode_executor.backends.bubblewrap import BubblewrapBackend
    from codemode_executor.errors import BackendError

    from codemode import ClientConfig

    starts = 0

    async def fail(self: Any, limits: Any) -> Any:
        nonlocal starts
        starts += 1
        raise BackendError("the kernel said no")

    monkeypatch.setattr(BubblewrapBackend, "start", fail)

    def test(url: str, key: str) -> None:
        with Codemode(client_config=ClientConfig(executor_url=url, executor_api_key=key)) as codemode:
            with pytest.raises(ExecutorConnectionError, match="the kernel said no") as caught:
                codemode.execute("1")
            assert not caught.value.outcome_unknown
            # It was tried again, and with a sandbox it would have worked.
            assert starts == 3
            assert codemode.health_check()
            assert not codemode.ready_check()
        ready = dial(url, key).call("Ready", pb.ReadyRequest())
        assert (ready.ready, ready.reason) == (False, "the kernel said no")

    serve_here(test, warm=0)
