"""Tools run with the caller's rights, so what a sandbox makes of them is bounded and checked outside it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from codemode import ComponentRegistry, RuntimeContext
from tests.safety.arena import Arena, Attack, Outcome
from tests.safety.test_forgery import FORGE


class Counter:
    """Tools that count how they are called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.lock = threading.Lock()

    def add(self, value: object = None) -> int:
        with self.lock:
            self.calls.append(value)
            return len(self.calls)

    async def add_async(self, value: object = None) -> int:
        await asyncio.sleep(0)
        return self.add(value)


class HostileError(Exception):
    """An error that is as nasty outside a sandbox as code could make it inside."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _fail(how: str) -> None:
    secret = "local-secret"
    if how == "text":
        raise HostileError
    if how == "huge":
        raise ValueError("x" * (10 << 20))
    if how == "surrogate":
        raise ValueError("\ud800")
    try:
        raise KeyError(f"cause-{secret}")
    except KeyError as cause:
        error = ValueError("only this")
        error.add_note("note-secret")
        raise error from cause


@pytest.fixture
def counter(arena: Arena) -> Iterator[Counter]:
    """Tools `add`, `add_async`, `fail` and `hidden`, registered for one test."""
    counter = Counter()
    registry: ComponentRegistry = arena.codemode.registry
    for name, tool in {
        "add": counter.add,
        "add_async": counter.add_async,
        "fail": _fail,
        "hidden": counter.add,
    }.items():
        registry.register_tool(name, tool, overwrite=True)
    yield counter
    for name in ("add", "add_async", "fail", "hidden"):
        registry.unregister_tool(name)


@pytest.mark.parametrize(
    "code",
    [
        "tools.hidden()",
        "tools['hidden'].run()",
        "type(tools)(tools._channel, None).hidden()",
        "object.__setattr__(tools, '_allowed', None); tools.hidden()",
        f'{FORGE}\nbody = b\'{{"args":[],"kwargs":{{}}}}\'\n'
        "answer = tools._channel.request(CALL, {'name': 'hidden'}, body)\n"
        "raise LookupError(answer.head['type'])",
    ],
    ids=["by attribute", "by item", "by another proxy", "by a changed proxy", "by a frame"],
)
def test_a_tool_that_was_not_allowed_is_never_called(arena: Arena, counter: Counter, code: str) -> None:
    attack = Attack(
        name="not allowed",
        code=f"try:\n    exec({code!r})\nexcept Exception as error:\n    result = str(error)\n",
        tools=("add",),
        ends=Outcome(),
    )
    result = arena.attack(attack)
    assert "ToolNotFoundError" in result.result or "hidden" in result.result
    assert counter.calls == []


def test_what_a_sandbox_says_of_its_caller_is_not_what_a_tool_sees(arena: Arena) -> None:
    result = arena.attack(
        Attack(
            name="forged context",
            code=f"""{FORGE}
context._values["client_id"] = "bystander"
context._values["admin"] = True
answers = [tools.who()]
forged = {{"client_id": "bystander", "admin": True}}
body = json.dumps({{"args": [], "kwargs": {{}}, "context": forged, "variables": forged}}).encode()
head = {{"name": "who", "context": forged, "owner": "bystander", "variables_json": json.dumps(forged)}}
answers.append(json.loads(tools._channel.request(CALL, head, body).body))
try:
    answers.append(tools.who(context=forged))
except Exception as error:
    answers.append(type(error).__name__)
try:
    answers.append(tools.who(forged))
except Exception as error:
    answers.append(type(error).__name__)
result = answers
""",
            ends=Outcome(),
        )
    )
    mine = {"client_id": "attacker"}
    assert result.value == [mine, mine, "ToolError", "ToolError"]


def test_ten_thousand_rapid_calls_are_answered_and_one_more_is_not(arena: Arena, counter: Counter) -> None:
    result = arena.attack(
        Attack(
            name="rapid calls",
            code="""
for number in range(10_000):
    last = tools.add(number)
try:
    tools.add(-1)
except Exception as error:
    result = [last, str(error)]
""",
            timeout=60,
            within=70,
            ends=Outcome(),
            limits={"tool_calls_per_second": 100_000},
        )
    )
    assert result.value[0] == 10_000
    assert "tool_calls: the limit of 10,000 is reached" in result.value[1]
    assert counter.calls == list(range(10_000))
    assert len(result.tool_calls) == 10_000


def test_calls_that_come_too_fast_are_slowed_down_and_then_refused(arena: Arena, counter: Counter) -> None:
    result = arena.attack(
        Attack(
            name="too fast",
            code="""
async def call():
    try:
        return await tools.add_async.run_async(1)
    except Exception as error:
        return str(error)
import asyncio
answers = await asyncio.gather(*[call() for _ in range(100)])
refusals = [answer for answer in answers if isinstance(answer, str)]
result = [len(answers) - len(refusals), refusals[0]]
""",
            limits={"tool_calls_per_second": 20},
            ends=Outcome(),
        )
    )
    assert 40 <= result.value[0] <= 60
    assert "tool_calls_per_second: the limit of 20 is reached" in result.value[1]
    assert len(counter.calls) == result.value[0]


def test_calls_from_many_threads_and_tasks_each_get_their_own_answer(arena: Arena, counter: Counter) -> None:
    result = arena.attack(
        Attack(
            name="many at once",
            code="""
import asyncio, threading
threading.stack_size(256 << 10)
answers = []
def call():
    answers.extend(tools.add() for _ in range(20))
threads = [threading.Thread(target=call) for _ in range(32)]
for thread in threads:
    thread.start()
answers += await asyncio.gather(*[tools.add_async.run_async() for _ in range(300)])
for thread in threads:
    thread.join()
result = sorted(answers)
""",
            timeout=20,
            within=20,
            ends=Outcome(),
        )
    )
    assert result.value == list(range(1, 32 * 20 + 300 + 1))
    assert len(counter.calls) == 32 * 20 + 300


def test_more_calls_at_once_than_may_be_open_are_refused(arena: Arena) -> None:
    result = arena.attack(
        Attack(
            name="open calls",
            code="""
import asyncio
tasks = [asyncio.create_task(tools.slow.run_async()) for _ in range(1100)]
done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
result = str([task.exception() for task in done][0])
for task in tasks:
    task.cancel()
""",
            timeout=20,
            within=20,
            ends=Outcome(),
        )
    )
    assert "1000 calls are open already" in result.result


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("value", "it contains itself or is nested too deeply"),
        ("deep", "it contains itself or is nested too deeply"),
        ("'x' * (70 << 20)", "above the limit message_bytes"),
        ("object()", "object is not JSON"),
        ("{1: {2, 3}, 'k': b'x'}", "bytes is not JSON"),
        ("'x' * (200 << 20)", ""),
    ],
    ids=["recursive", "nested", "huge", "no JSON", "bytes", "beyond memory"],
)
def test_arguments_that_cannot_be_sent_say_so(
    arena: Arena, counter: Counter, expression: str, says: str
) -> None:
    result = arena.attack(
        Attack(
            name="arguments",
            code=f"""
value = []
value.append(value)
deep = []
for _ in range(100_000):
    deep = [deep]
try:
    tools.add(value={expression})
except Exception as error:
    result = f"{{type(error).__name__}} {{error}}"
""",
            timeout=20,
            within=20,
            ends=Outcome(),
        )
    )
    assert says in result.result
    assert "Error" in result.result
    assert counter.calls == []


@pytest.mark.parametrize(
    "body",
    [
        "b'nonsense'",
        "b'[]'",
        "b'{}'",
        'b\'{"args":{},"kwargs":[]}\'',
        "b'{\"args\":[' + b'[' * 400_000 + b']' * 400_000 + b'],\"kwargs\":{}}'",
        "b'{\"args\":[' + b'9' * 100_000 + b'],\"kwargs\":{}}'",
        'b\'{"args":[],"kwargs":{"__class__":1,"self":2}}\'',
        'b\'{"args":[],"kwargs":{"1 2":1}}\'',
    ],
)
def test_forged_arguments_never_reach_a_tool(arena: Arena, counter: Counter, body: str) -> None:
    result = arena.attack(
        Attack(
            name="forged arguments",
            code=f"{FORGE}\nresult = tools._channel.request(CALL, {{'name': 'add'}}, {body}).head",
            ends=Outcome(),
        )
    )
    assert set(result.value) == {"id", "type", "message"}
    assert counter.calls == []


@pytest.mark.parametrize(
    ("how", "type_", "message"),
    [
        ("cause", "ValueError", "only this"),
        ("text", "HostileError", "(its message could not be made)"),
        ("surrogate", "ValueError", "?"),
        ("huge", "ValueError", "x" * 4000),
    ],
)
def test_a_tool_that_raises_sends_its_type_and_message_and_nothing_else(
    arena: Arena, counter: Counter, how: str, type_: str, message: str
) -> None:
    result = arena.attack(
        Attack(
            name="a failing tool",
            code=f"{FORGE}\nbody = json.dumps({{'args': [{how!r}], 'kwargs': {{}}}}).encode()\n"
            "answer = tools._channel.request(CALL, {'name': 'fail'}, body)\n"
            "result = [answer.head['type'], answer.head['message'], sorted(answer.head), len(answer.body)]",
            ends=Outcome(),
        )
    )
    assert result.value == [type_, message, ["id", "message", "type"], 0]
    told = json.dumps(result.to_dict())
    for secret in ("local-secret", "note-secret", "_fail", __file__):
        assert secret not in told


def test_a_tool_sees_the_context_of_its_caller_even_from_another_owners_thread(arena: Arena) -> None:
    seen: list[tuple[str, object]] = []

    def follow(owner: str) -> None:
        arena.codemode.registry.set_context(RuntimeContext(variables={"client_id": owner}))
        seen.extend((owner, arena.codemode.run("result = tools.who()").value) for _ in range(10))

    threads = [threading.Thread(target=follow, args=(f"owner-{number}",)) for number in range(3)]
    with arena.unharmed():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 30
    assert all(value == {"client_id": owner} for owner, value in seen)
