"""The compiled filters: what the profile compiles to, and what they decide on each machine.

The programs of both machines are executed here by a small interpreter of classic BPF, so that the filter of
the machine the tests do not run on is tested too.
"""

import json
import os
import struct
from typing import Any

import pytest
from codemode_executor.seccomp import UnsupportedMachineError, compiled_filter, docker_profile

if os.environ.get("CI"):
    import pyseccomp  # type: ignore[import-untyped]  # annotated, but without the py.typed marker
else:
    pyseccomp = pytest.importorskip("pyseccomp")

from codemode_executor.seccomp import compile as compiler

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
TOKEN = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}
MACHINES = sorted(TOKEN)

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = (0x50000 | code for code in (1, 38, 93, 97))


def execute(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """Return what a filter decides, as the kernel would compute it."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        match code:
            case 0x20:  # load a word
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:  # and
                accumulator &= k
            case 0x05:  # jump
                at += k
            case 0x15:  # jump if equal
                at += if_true if accumulator == k else if_false
            case 0x25:  # jump if greater
                at += if_true if accumulator > k else if_false
            case 0x35:  # jump if greater or equal
                at += if_true if accumulator >= k else if_false
            case 0x06:  # return
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def decide(machine: str, call: str | int, *arguments: int) -> int:
    """Return what the machine's filter decides on a call of its own ABI."""
    number = call if isinstance(call, int) else pyseccomp.resolve_syscall(TOKEN[machine], call)
    assert number >= 0, call
    return execute(compiled_filter(machine), number, AUDIT_ARCH[machine], arguments)


def test_filters_are_what_the_profile_compiles_to(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed filters are fresh, byte for byte."""
    assert compiler.main(["--check"]) == 0, capsys.readouterr().err


def test_check_finds_a_stale_filter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile changed without compiling is noticed, and nothing is written."""
    profile = json.loads(docker_profile())
    profile["syscalls"][0]["names"].remove("getpid")
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    for machine in MACHINES:
        (tmp_path / f"{machine}.bpf").write_bytes(compiled_filter(machine))
    monkeypatch.setattr(compiler, "HERE", tmp_path)
    assert compiler.main(["--check"]) == 1
    assert "aarch64.bpf" in capsys.readouterr().err
    assert (tmp_path / "x86_64.bpf").read_bytes() == compiled_filter("x86_64")
    assert compiler.main([]) == 0
    assert compiler.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["syscalls"][0]["names"].append("no_such_call"), "no_such_call"),
        (lambda p: p["archMap"][0]["subArchitectures"].append("SCMP_ARCH_X32"), "other ABIs"),
        (lambda p: p.update(defaultAction="SCMP_ACT_ALLOW"), "allow-list"),
        (
            lambda p: p["syscalls"][0].update(
                args=[{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in (1, 2)]
            ),
            "compared twice",
        ),
    ],
)
def test_what_docker_would_read_differently_is_an_error(change: Any, message: str) -> None:
    """The compiler does not guess."""
    profile = json.loads(docker_profile())
    change(profile)
    with pytest.raises(compiler.ProfileError, match=message):
        compiler.check_profile(profile)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_machine_is_named_once(machine: str) -> None:
    """Nothing libseccomp 2.5.4 knows is left to the default, and nothing is decided twice."""
    unconditional, conditional = [], set()
    for rule in json.loads(docker_profile())["syscalls"]:
        if "args" in rule:
            conditional.update(rule["names"])
        else:
            unconditional += rule["names"]
    assert len(unconditional) == len(set(unconditional))
    assert conditional.isdisjoint(unconditional)
    unnamed = []
    for number in range(457):
        try:
            name = pyseccomp.resolve_syscall(TOKEN[machine], number).decode()
        except ValueError:
            continue
        if name not in conditional and name not in unconditional:
            unnamed.append(name)
    assert unnamed == []


@pytest.mark.parametrize("machine", MACHINES)
def test_filter_decides_as_the_profile_says(machine: str) -> None:
    """Each call without conditions, by each machine's own number."""
    for rule in json.loads(docker_profile())["syscalls"]:
        if "args" in rule:
            continue
        expected = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else 0x50000 | rule["errnoRet"]
        for name in rule["names"]:
            if pyseccomp.resolve_syscall(TOKEN[machine], name) >= 0:
                absent = name in compiler.UNCOUNTED
                assert decide(machine, name, 1, 2, 3) == (ENOSYS if absent else expected), name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("number", [457, 462, 500, 1000, 0x3FFFFFFF])
def test_unknown_calls_do_not_exist(machine: str, number: int) -> None:
    """A call newer than the profile fails with ENOSYS, so that programs fall back."""
    assert decide(machine, number) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("foreign", sorted(AUDIT_ARCH))
def test_calls_of_another_abi_kill(machine: str, foreign: str) -> None:
    """Whatever the number, since numbers mean something else there."""
    if foreign != machine:
        for number in (0, 1, 20, 172, 425):
            assert execute(compiled_filter(machine), number, AUDIT_ARCH[foreign]) == KILL_PROCESS


@pytest.mark.parametrize("number", [0, 39, 512, 547])
def test_x32_calls_kill(number: int) -> None:
    """x32 shares its architecture with x86_64 and differs by one bit of the number."""
    assert decide("x86_64", 0x40000000 | number) == KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (1, 0o2000002, 0), ALLOW),
        ("socket", (2, 1, 0), ALLOW),
        ("socket", (2, 0o2004001, 6), ALLOW),
        ("socket", (10, 2, 17), ALLOW),
        ("socket", (10, 2, 6), ENOSYS),
        ("socket", (2, 3, 1), EPERM),
        ("socket", (10, 3, 255), EPERM),
        ("socket", (2, 1, 132), EPROTONOSUPPORT),
        ("socket", (2, 1, 2**64 - 1), EPROTONOSUPPORT),
        ("socket", (2, 5, 0), ENOSYS),
        ("socket", (2, 6, 0), ENOSYS),
        *(("socket", (family, 1, 0), EAFNOSUPPORT) for family in (0, *range(3, 10), *range(11, 50))),
        ("socket", (2**32 + 1, 1, 0), EAFNOSUPPORT),
        ("socketpair", (1, 1, 0), ALLOW),
        ("socketpair", (0, 1, 0), EAFNOSUPPORT),
        ("socketpair", (2, 1, 0), EAFNOSUPPORT),
        ("clone", (0x003D0F00,), ALLOW),  # a thread of glibc's
        ("clone", (0x01200011,), ALLOW),  # a process of glibc's
        *(("clone", (1 << bit | 17,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
        ("clone", (2**63 + 0x10000000,), EPERM),
        ("personality", (0,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (8,), ENOSYS),
        ("personality", (0x40000,), ENOSYS),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 2**40 + 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("ioctl", (0, 0x541D), EPERM),
        ("ioctl", (0, 0x5423), EPERM),
        ("ioctl", (0, 0x541B), ALLOW),
        ("ioctl", (0, 0x5421), ALLOW),
        ("ioctl", (0, 0x5451), ALLOW),
        ("ioctl", (0, 0x802C542A), ALLOW),
        ("ioctl", (0, 0x8933), ALLOW),
        ("ioctl", (0, 2**32 + 0x8933), ENOSYS),
        ("ioctl", (0, 0xC018AA3F), ENOSYS),
    ],
)
def test_conditions_on_arguments(machine: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    """Each condition holds on both machines, with high bits set as well."""
    assert decide(machine, call, *arguments) == expected


def test_machines_go_by_several_names() -> None:
    """The names of `uname -m`, and those of other systems."""
    assert compiled_filter("arm64") == compiled_filter("aarch64")
    assert compiled_filter("AMD64") == compiled_filter("x86_64")
    assert compiled_filter() in (compiled_filter("x86_64"), compiled_filter("aarch64"))


def test_another_machine_is_told_what_to_do() -> None:
    """No filter means no bubblewrap sandbox, never one without a filter."""
    with pytest.raises(UnsupportedMachineError, match=r"riscv64.*Install Docker") as caught:
        compiled_filter("riscv64")
    assert caught.value.machine == "riscv64"
