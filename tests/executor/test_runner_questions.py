"""What a cell in the runner asks of its caller: tools, context and input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from codemode_sandbox.frames import Message, MessageKind

if TYPE_CHECKING:
    from tests.executor.conftest import Runner

# --- tools, context, input ------------------------------------------------------------------------------


def weather(location: str, days: int = 1) -> str:
    """Tell the weather."""
    if location == "Atlantis":
        raise LookupError("it sank")
    return f"{location} {days}"


@pytest.mark.parametrize(
    "call",
    [
        "tools['weather'].run('Oslo')",
        "tools.weather(location='Oslo')",
        "tools.weather.run(location='Oslo', days=1)",
        "await tools.weather.run_async('Oslo')",
        "(await asyncio.gather(*(tools.weather.run_async(location='Oslo') for _ in range(9))))[8]",
    ],
)
def test_every_way_to_call_a_tool(runner: Runner, call: str) -> None:
    outcome = runner.run(f"import asyncio\nresult = {call}", runner.answering({"weather": weather}))
    assert outcome.value == "Oslo 1"


def test_a_tools_failure_is_an_exception_with_its_type_and_message(runner: Runner) -> None:
    code = """
try:
    tools.weather('Atlantis')
except Exception as e:
    result = [e.tool, e.type, e.message]
"""
    outcome = runner.run(code, runner.answering({"weather": weather}))
    assert outcome.value == ["weather", "LookupError", "it sank"]
    failed = runner.run("tools.weather('Atlantis')", runner.answering({"weather": weather}))
    assert failed.error["tool"] == "weather"
    assert failed.error["traceback"].rstrip().endswith("tool 'weather' failed: LookupError: it sank")


def test_tools_can_be_listed_and_explained(runner: Runner) -> None:
    answer = runner.answering({"weather": weather, "x-y": lambda: 1})
    assert runner.run("[list(tools), len(tools), 'weather' in tools, dir(tools)]", answer).value == [
        ["weather", "x-y"], 2, True, ["weather"],
    ]  # fmt: skip
    assert [t["name"] for t in runner.run("tools['__list__'].run()", answer).value] == ["weather", "x-y"]
    schema = runner.run("tools['__schema__'].run(name='weather')", answer).value
    assert schema["input_schema"]["required"] == ["location"]
    explained = runner.run("help(tools.weather)", answer).printed()
    assert "weather(location: str, days: int = 1) -> str" in explained
    assert "Tell the weather." in explained


def test_a_tool_that_is_not_allowed_is_refused_at_once(runner: Runner) -> None:
    outcome = runner.run("tools['wether'].run()", tools=["weather"])
    assert "did you mean 'weather'?" in outcome.error["message"]
    assert not any(message.kind == MessageKind.TOOL_CALL for message in outcome.messages)
    assert runner.run("hasattr(tools, 'other')", tools=["weather"]).result == "False"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("object()", "argument 'location' cannot be sent: object is not JSON"),
        ("(lambda x: x.append(x) or x)([])", "argument 'location' cannot be sent: it contains itself"),
        ("'x' * (65 << 20)", "above the limit message_bytes"),
    ],
)
def test_arguments_that_cannot_be_sent_are_named(runner: Runner, argument: str, words: str) -> None:
    outcome = runner.run(f"tools.weather(location={argument})", runner.answering({"weather": weather}))
    assert words in outcome.error["message"]
    assert runner.run("1 + 1").result == "2"


def test_context_and_config_are_mappings_that_cannot_be_changed(runner: Runner) -> None:
    given: dict[str, Any] = {"context": {"client_id": "acme"}, "config": {"n": 1}}
    code = "result = [context['client_id'], context.get('x', 0), dict(context), config['n'], list(config)]"
    assert runner.run(code, **given).value == ["acme", 0, {"client_id": "acme"}, 1, ["n"]]
    assert runner.run("context['client_id'] = 'other'", **given).error["type"] == "TypeError"
    assert (
        "context has no 'user'; it holds client_id" in runner.run("context['user']", **given).error["message"]
    )


def test_input_is_asked_for_and_refused_where_nobody_answers(runner: Runner) -> None:
    def answer(message: Message) -> None:
        if message.kind == MessageKind.INPUT_REQUEST:
            words = f"{message.head['prompt']}{message.head['password']}".encode()
            runner.send(MessageKind.INPUT_ANSWER, {"id": message.head["id"], "eof": False}, words)

    code = "import getpass, sys\nresult = [input('a '), getpass.getpass('b ')]"
    assert runner.run(code, answer, input=True).value == ["a False", "b True"]
    assert not runner.run("input()", answer, input=False).report["ok"]
