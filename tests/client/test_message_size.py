"""Requests and answers that are too large are refused with a word that names them, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from codemode import ExecutorClient
from codemode.errors import LimitExceededError
from tests.conftest import MakeClient, MakeExecutor

if TYPE_CHECKING:
    from codemode.local import LocalExecutor

MB = 1 << 20


@pytest.mark.parametrize("field", ["code", "config"])
def test_a_request_above_the_limit_names_what_is_too_large(executor: LocalExecutor, field: str) -> None:
    client = ExecutorClient(executor.url, executor.api_key)
    sent = {
        "code": "1",
        "config": {},
        field: {"x": "x" * (65 * MB)} if field == "config" else "#" * (65 * MB),
    }
    with pytest.raises(LimitExceededError, match=f"^{field}: .*Nothing was run") as caught:
        client.execute(sent["code"], None, sent["config"])  # type: ignore[arg-type]
    assert caught.value.limit == "message_bytes"
    assert client.execute("1 + 1", None, {}).result == "2"
    client.close()


def test_a_tools_answer_above_the_limit_fails_that_call_alone(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    codemode = connect(start_executor(max_message_bytes=3 * MB))
    codemode.registry.register_tool("much", lambda: "x" * (4 * MB))
    code = """
try:
    tools.much()
except Exception as error:
    result = str(error)
"""
    assert "above the limit message_bytes" in codemode.execute(code)


def test_what_code_says_may_be_longer_than_what_clients_may(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    codemode = connect(start_executor(max_message_bytes=3 * MB))
    codemode.registry.register_tool("length", lambda text: len(text))
    outcome = codemode.run(f"print('x' * {5 * MB})\nresult = tools.length(text='x' * {5 * MB})")
    assert (len(outcome.stdout), outcome.value) == (5 * MB + 1, 5 * MB)
