"""What an executor logs at its most talkative: ids, and nothing of what it works on."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from codemode_executor import logs

from codemode import ExecutorClientError

if TYPE_CHECKING:
    from tests.cli.conftest import Serve

# Each stands for a kind of content, and must be nowhere in a log.
CODE, CONTEXT, ARGUMENT, OUTPUT, WRONG_KEY = (
    f"marker-of-{kind}-5f1c" for kind in ("code", "context", "argument", "output", "key")
)
SECRETS = (CODE, CONTEXT, ARGUMENT, OUTPUT, WRONG_KEY)


def test_no_line_holds_code_keys_or_context_values(serve: Serve, tmp_path: Path) -> None:
    executor = serve("--log-level", "debug", "--max-code-bytes", "5000")
    file = tmp_path / "file"
    file.write_text(OUTPUT)
    with executor.connect() as codemode, executor.connect(WRONG_KEY) as stranger:
        codemode.registry.register_tool("echo", lambda text: text)
        codemode.registry.register_tool("broken", lambda text: {}[text])
        codemode.with_context(client_id=CONTEXT)
        codemode.run(
            f"# {CODE}\nprint('{OUTPUT}', context['client_id'])\nresult = tools.echo(text='{ARGUMENT}')"
        )
        codemode.run(f"tools.broken(text='{ARGUMENT}')")
        codemode.run(f"raise type('{CODE}', (Exception,), {{}})('{OUTPUT}')")
        codemode.run(f"tools['{CODE}'].run()")
        codemode.run(f"syntax error {CODE}")
        codemode.run(f"while True: '{CODE}'", execution_timeout=0.2)
        codemode.run(f"import os; os.write(3, b'{CODE}' * 100); os.write(1, b'{OUTPUT}')")
        for bad in ("x" * 6000 + CODE, f"'{CODE}"):
            with suppress(ExecutorClientError):
                codemode.run(bad, limits={"memory_bytes": 1})
        with codemode.session() as session:
            session.run(f"x = '{CODE}'")
            session.complete(f"x.{CODE}", 2)
            session.put_file(file, CODE)
            session.run(f"import os; os._exit(1) # {CODE}")
        with pytest.raises(ExecutorClientError):
            stranger.run(f"'{CODE}'")
        executor.wait_for_line("execution ended", 8)
    executor.close()
    text = executor.log.read_text()
    assert [secret for secret in (*SECRETS, executor.key) if secret in text] == []
    begun = executor.wait_for_line("execution begins")
    assert all(line["correlation_id"].startswith("cm-") and line["owner"] for line in begun)
    ended = executor.wait_for_line("execution ended")
    assert {line["error_type"] for line in ended} >= {"", "ToolError", "other", "TimeoutError"}


def test_garbage_on_the_wire_is_not_logged(serve: Serve) -> None:
    executor = serve("--log-level", "debug")
    with grpc.insecure_channel(executor.url) as channel:
        call = channel.stream_stream("/codemode.v1.Executor/Execute", bytes, bytes)
        with pytest.raises(grpc.RpcError):
            list(
                call(
                    iter([b"\xff\xff" + CODE.encode()]),
                    metadata=(("authorization", f"Bearer {executor.key}"),),
                )
            )
    executor.close()
    assert CODE not in executor.log.read_text()
    assert executor.key not in executor.log.read_text()
    executor.lines()


def test_a_mistake_in_a_handler_is_logged_with_ids_and_without_its_message(serve: Serve) -> None:
    program = (
        "from codemode_executor import service\n"
        "def fail(*asked): raise ValueError('marker-of-code-5f1c', asked)\n"
        "service.resolve = fail\n"
        "from codemode_executor.cli import main; main(prog_name='codemode-executor')"
    )
    executor = serve(program=program)
    with executor.connect() as codemode, pytest.raises(ExecutorClientError):
        codemode.run(f"'{CODE}'", correlation_id="cm-handler")
    (line,) = [line for line in executor.lines() if "exc_info" in line]
    assert line["correlation_id"] == "cm-handler"
    assert line["owner"].startswith("default/")
    assert "in fail" in line["exc_info"]
    assert line["exc_info"].endswith("ValueError")
    executor.close()
    assert CODE not in executor.log.read_text()


def test_a_mistake_while_code_is_run_is_logged_and_ends_the_execution(serve: Serve) -> None:
    program = (
        "from codemode_executor import execution\n"
        "def run(self, sandbox, start, context, config): raise KeyError(start.code)\n"
        "execution.Execution.run = run\n"
        "from codemode_executor.cli import main; main(prog_name='codemode-executor')"
    )
    executor = serve(program=program)
    with executor.connect() as codemode:
        result = codemode.run(f"'{CODE}'", correlation_id="cm-run")
    assert not result.success
    assert "its log says more" in str(result.error)
    (line,) = executor.wait_for_line("an execution failed in the executor")
    assert line["correlation_id"] == "cm-run"
    assert line["exc_info"].endswith("KeyError")
    assert CODE not in executor.log.read_text()


def test_grpc_core_says_nothing_in_a_form_of_its_own(serve: Serve) -> None:
    import socket

    executor = serve("--log-level", "debug")
    path = executor.url.removeprefix("unix:")
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\x00" * 100):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(nonsense)
            client.settimeout(2)
            with suppress(TimeoutError):
                client.recv(1000)
    executor.close()
    executor.lines()


# --- the formatter ------------------------------------------------------------------------------


@pytest.fixture
def format_record(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A log record as it would be written."""
    root = logging.getLogger()
    for logger in (root, logging.getLogger("codemode_executor")):
        monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    logs.configure("debug")
    logging.captureWarnings(False)
    handler = root.handlers[0]

    def write(**parts: Any) -> dict[str, Any]:
        record = logging.LogRecord("name", logging.ERROR, "file", 1, "said", (), parts.pop("exc_info", None))
        record.__dict__.update(parts)
        line: dict[str, Any] = json.loads(handler.format(record))
        return line

    return write


def test_a_chain_of_exceptions_is_told_by_types_and_places(format_record: Any) -> None:
    try:
        try:
            int(CODE)
        except ValueError as error:
            raise ExceptionGroup(CODE, [KeyError(CODE)]) from error
    except ExceptionGroup as error:
        line = format_record(exc_info=(type(error), error, error.__traceback__))
    assert CODE not in json.dumps(line)
    assert [part for part in line["exc_info"].splitlines() if ":" not in part] == [
        "ValueError",
        "which led to",
        "ExceptionGroup",
        "of which one is",
        "KeyError",
    ]


def test_the_time_is_utc_to_the_millisecond(format_record: Any) -> None:
    line = format_record(created=0.25)
    assert line["time"] == "1970-01-01T00:00:00.250+00:00"
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "name", "said")


def test_ids_are_those_of_the_task(format_record: Any) -> None:
    import asyncio

    async def work(name: str) -> str:
        logs.bind(correlation_id=name)
        await asyncio.sleep(0)
        return str(format_record()["correlation_id"])

    async def both() -> list[str]:
        return list(await asyncio.gather(work("a"), work("b")))

    assert asyncio.run(both()) == ["a", "b"]
    assert "correlation_id" not in format_record()


def test_other_packages_are_not_heard_below_warnings(format_record: Any) -> None:
    assert not logging.getLogger("urllib3").isEnabledFor(logging.INFO)
    assert logging.getLogger("codemode_executor.pool").isEnabledFor(logging.DEBUG)
