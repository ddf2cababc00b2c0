"""Frames that code writes to its interpreter's channel itself speak for nothing but its own execution."""

import pytest

from tests.safety.arena import OUT_OF_TIME, Arena, Attack, Outcome

# What hostile code needs of the protocol; see `codemode_sandbox.frames`.
FORGE = """
import json, os, struct, time
OUTPUT, DISPLAY, CALL, SCHEMA, INPUT, DONE = range(32, 38)
def frame(kind, head=b"", body=b"", length=None, head_length=None):
    if not isinstance(head, bytes):
        head = json.dumps(head).encode()
    length = len(head) + len(body) if length is None else length
    return struct.pack("!IBI", length, kind, len(head) if head_length is None else head_length) + head + body
def send(data):
    view = memoryview(data)
    while view:
        view = view[os.write(3, view):]
"""
VIOLATION = Outcome(error="ProtocolViolationError")
CALLS = Outcome(error="LimitExceededError", limit="tool_calls")


def forged(name: str, code: str, ends: Outcome = VIOLATION, **options: object) -> Attack:
    """An attack that begins with `FORGE`."""
    return Attack(name=name, code=f"{FORGE}{code}\ntime.sleep(60)", ends=ends, **options)  # type: ignore[arg-type]


NO_MESSAGE = [
    forged("a length of four gigabytes", 'send(frame(OUTPUT, {"stream": "stdout"}, length=0xFFFFFFFF))'),
    forged("a header longer than its message", 'send(frame(OUTPUT, {"stream": "x"}, head_length=1 << 20))'),
    forged("a header that is no JSON", 'send(frame(OUTPUT, b"nonsense"))'),
    forged("a header that is a list", 'send(frame(OUTPUT, b"[]"))'),
    forged("a header nested without end", 'send(frame(CALL, b\'{"id":\' + b"[" * 400_000))'),
    forged("a header nested too deep", 'send(frame(CALL, b\'{"id":\' + b"[" * 9**6 + b"]" * 9**6 + b"}"))'),
    forged("a number of a million digits", 'send(frame(CALL, b\'{"id":1\' + b"0" * 1_000_000 + b"}"))'),
    forged("an unknown kind", "send(frame(99, {}))"),
    forged("what only the executor says", 'send(frame(1, {}, b"1 + 1"))'),
    forged("an unknown stream", 'send(frame(OUTPUT, {"stream": "stdin"}, b"x"))'),
    forged("a stream that is a list", 'send(frame(OUTPUT, {"stream": ["stdout"]}, b"x"))'),
    forged("a display of no kind", 'send(frame(DISPLAY, {}, b"{}"))'),
    forged("a display that is no text", 'send(frame(DISPLAY, {"kind": "display_data"}, b"\\xff"))'),
    forged("a call without a number", 'send(frame(CALL, {"name": "who"}, b"{}"))'),
    forged("a call numbered -1", 'send(frame(CALL, {"id": -1, "name": "who"}, b"{}"))'),
    forged("a call numbered 0", 'send(frame(CALL, {"id": 0, "name": "who"}, b"{}"))'),
    forged("a call numbered 2**64", 'send(frame(CALL, {"id": 2**64, "name": "who"}, b"{}"))'),
    forged("a call numbered 1.5", 'send(frame(CALL, {"id": 1.5, "name": "who"}, b"{}"))'),
    forged("a call numbered true", 'send(frame(CALL, {"id": True, "name": "who"}, b"{}"))'),
    forged("a call numbered infinity", 'send(frame(CALL, b\'{"id": 1e999, "name": "who"}\', b"{}"))'),
    forged("a call whose number is a text", 'send(frame(CALL, {"id": "1", "name": "who"}, b"{}"))'),
    forged("a call of a list", 'send(frame(CALL, {"id": 1, "name": ["who"]}, b"{}"))'),
    forged("a call of a name without end", 'send(frame(CALL, {"id": 1, "name": "x" * 100_000}, b"{}"))'),
    forged("two calls of one number", 'send(frame(CALL, {"id": 7, "name": "slow"}, b"{}") * 2)'),
    forged("a report of nothing", "send(frame(DONE, {}))"),
    forged("a report of a result that is not there", 'send(frame(DONE, {"ok": True, "result": 9}, b"x"))'),
    forged("a report of a result below zero", 'send(frame(DONE, {"ok": True, "result": -1}, b"x"))'),
    forged("a report with a count below zero", 'send(frame(DONE, {"ok": True, "result": 0, "count": -1}))'),
    forged("a report of a value that is no JSON", 'send(frame(DONE, {"result": 0, "has_value": 1}, b"["))'),
    forged("a report of a huge result", 'send(frame(DONE, {"ok": 1, "result": 9 << 20}, b"x" * (9 << 20)))'),
    forged("a report of an error that is a list", 'send(frame(DONE, {"ok": 0, "result": 0, "error": []}))'),
    forged(
        "a report of an error of numbers",
        'send(frame(DONE, {"ok": False, "result": 0, "error": '
        '{"type": 1, "message": 2, "traceback": 3, "lines": 4}}))',
    ),
    forged("noise", "while True: send(os.urandom(65536))"),
    Attack(
        name="noise on every descriptor",
        code="""
import os
while True:
    for descriptor in range(64):
        try:
            os.write(descriptor, os.urandom(4096))
        except OSError:
            pass
""",
        ends=VIOLATION,
    ),
]  # fmt: skip

OWN_WORDS = [
    forged(
        "a report of a result",
        'send(frame(DONE, {"ok": True, "count": 1, "result": 6}, b"forged"))',
        Outcome(result="forged"),
    ),
    forged(
        "a report, and a loop behind it",
        'send(frame(DONE, {"ok": True, "count": 1, "result": 6}, b"forged"))\nwhile True: pass',
        Outcome(result="forged"),
    ),
    forged(
        "a report that claims a limit",
        'send(frame(DONE, {"ok": False, "count": 1, "result": 0, "error": {"type": "TimeoutError", '
        '"message": "", "traceback": "", "lines": [], "limit": "timeout_seconds"}}))',
        # Only the executor says that a limit fired.
        Outcome(error="TimeoutError"),
    ),
    forged(
        "a report that claims the sandbox's limit",
        'send(frame(DONE, {"ok": False, "count": 1, "result": 0, "error": {"type": "OutOfMemoryError", '
        '"message": "", "traceback": "", "lines": [], "limit": "memory_bytes"}}))',
        Outcome(error="OutOfMemoryError"),
    ),
    forged(
        "half a message",
        'send(frame(OUTPUT, {"stream": "stdout"}, length=64 << 20))\n'
        'for _ in range(60): send(b"x" * (1 << 20))',
        OUT_OF_TIME,
        timeout=1,
    ),
    forged(
        "a report in the name of another execution",
        'send(frame(DONE, {"ok": True, "count": 1, "result": 6, "execution_id": "0" * 32, '
        '"owner": "bystander", "session": 3}, b"forged"))',
        Outcome(result="forged"),
    ),
]

FLOODS = [
    forged(
        "displays of nothing",
        'block = frame(DISPLAY, {"kind": "clear_output"}, b"{}") * 2000\nwhile True: send(block)',
        Outcome(error="TimeoutError", limit="timeout_seconds", notice="output_bytes"),
        timeout=1.5,
        # What the slowest machine sends in that time.
        limits={"output_bytes": 1 << 18},
    ),
    forged(
        "single characters by turns on both streams",
        'pair = frame(OUTPUT, {"stream": "stdout"}, b"a") + frame(OUTPUT, {"stream": "stderr"}, b"b")\n'
        "while True: send(pair * 2000)",
        Outcome(error="TimeoutError", limit="timeout_seconds", notice="output_bytes"),
        timeout=1.5,
        # What the slowest machine sends in that time.
        limits={"output_bytes": 1 << 18},
    ),
    forged(
        "outputs of nothing",
        'block = frame(OUTPUT, {"stream": "stdout"}) * 2000\nwhile True: send(block)',
        OUT_OF_TIME,
        timeout=1.5,
    ),
    forged(
        "questions about tools",
        'number = 0\nwhile True:\n    number += 1\n    send(frame(SCHEMA, {"id": number, "name": "none"}))',
    ),
    forged(
        "requests for input that nobody allowed",
        "number = 0\nwhile True:\n    number += 1\n"
        '    send(frame(INPUT, {"id": number, "prompt": "x" * 9000, "password": False}))',
    ),
    forged(
        "calls that are not allowed",
        'number = 0\nwhile True:\n    number += 1\n    send(frame(CALL, {"id": number, "name": "x"}, b"{}"))',
        CALLS,
        tools=(),
        timeout=20,
        within=25,
    ),
    forged(
        "calls whose answers it does not read",
        "number = 0\nwhile True:\n    number += 1\n"
        '    send(frame(CALL, {"id": number, "name": "who"}, b"{}"))',
        CALLS,
        timeout=20,
        within=25,
    ),
    forged(
        "calls with large arguments that wait for answers",
        'body = b"[" + b" " * (16 << 20)\n'
        'for number in range(1, 41): send(frame(CALL, {"id": number, "name": "slow"}, body))\n',
        OUT_OF_TIME,
        timeout=3,
    ),
]


@pytest.mark.parametrize("attack", NO_MESSAGE, ids=str)
def test_what_is_no_message_ends_the_execution(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", OWN_WORDS, ids=str)
def test_a_forged_report_is_only_about_its_own_execution(arena: Arena, attack: Attack) -> None:
    arena.attack(attack)


@pytest.mark.parametrize("attack", FLOODS, ids=str)
def test_a_flood_of_messages_does_not_fill_the_executor(arena: Arena, attack: Attack) -> None:
    # What its memory may grow by is checked after every attack.
    arena.attack(attack)


DISPLAYS = [
    b"nonsense",
    b"[]",
    b'{"data": {"text/plain": [1]}, "metadata": {}, "transient": {}}',
    b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", DISPLAYS, ids=["nonsense", "a list", "a list as text", "nested without end"])
def test_a_display_that_makes_no_sense_is_left_out_with_a_word_about_it(arena: Arena, body: bytes) -> None:
    attack = forged("display", f'send(frame(DISPLAY, {{"kind": "display_data"}}, {body!r}))')
    with arena.unharmed():
        result = arena.run(attack)
    assert result.outputs == []
    assert "a display was left out" in result.stderr
