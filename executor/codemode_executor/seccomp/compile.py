"""Compile `profile.json` into the filters bubblewrap loads: `python -m codemode_executor.seccomp.compile`.

A tool for developers, run after each change of the profile. It needs the package `pyseccomp` and the
system's libseccomp, the library Docker's runtime compiles the same profile with. The filters are committed
beside the profile. The same profile gives the same bytes on any machine with the same release of libseccomp
(2.5.4, that of Debian 12, made those in the tree; another may order instructions differently). `--check`
writes nothing and exits with 1 if a filter is not what the profile compiles to.

The profile is held to what both compilers understand alike:

* A system call that libseccomp knows on neither machine is an error, not a silent refusal: it would be
  allowed or refused depending on the age of the library on the user's machine.
* A rule that compares one argument twice is an error: Docker's runtime reads that as "either", libseccomp as
  "both".
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import pyseccomp  # type: ignore[import-untyped]  # annotated, but without the py.typed marker

HERE = Path(__file__).parent

ARCHITECTURES = {
    "SCMP_ARCH_AARCH64": ("aarch64.bpf", pyseccomp.Arch.AARCH64),
    "SCMP_ARCH_X86_64": ("x86_64.bpf", pyseccomp.Arch.X86_64),
}
OPERATORS = {
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}
_BINARY_TREE = 2
# Absent for bubblewrap. A memfd that is on its way in a message belongs to no process, so that only a control
# group can count it, and bubblewrap's sandboxes need not have one.
UNCOUNTED = frozenset({"memfd_create"})


class Comparison(TypedDict):
    """A condition on one argument of a system call."""

    index: int
    value: int
    valueTwo: NotRequired[int]
    op: str


class Rule(TypedDict):
    """What happens to some system calls, if all conditions hold."""

    comment: str
    names: list[str]
    action: Literal["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]
    errnoRet: NotRequired[int]
    args: NotRequired[list[Comparison]]


class Architecture(TypedDict):
    """A machine's ABI, and further ones allowed beside it (here always none)."""

    architecture: str
    subArchitectures: list[str]


class Profile(TypedDict):
    """The part of Docker's format that `profile.json` uses."""

    defaultAction: Literal["SCMP_ACT_ERRNO"]
    defaultErrnoRet: int
    archMap: list[Architecture]
    syscalls: list[Rule]


class ProfileError(ValueError):
    """The profile says something that does not mean the same to Docker and to this compiler."""


def load_profile() -> Profile:
    """Read `profile.json`."""
    profile: Profile = json.loads((HERE / "profile.json").read_text(encoding="utf-8"))
    return profile


def check_profile(profile: Profile) -> None:
    """Refuse a profile that would be read differently in different places.

    Raises:
        ProfileError: Naming the rule at fault.
    """
    if profile["defaultAction"] != "SCMP_ACT_ERRNO":
        raise ProfileError("The default action must be SCMP_ACT_ERRNO: the profile is an allow-list.")
    for architecture in profile["archMap"]:
        if architecture["subArchitectures"]:
            raise ProfileError(f"{architecture['architecture']}: other ABIs of a machine are not allowed.")
    for rule in profile["syscalls"]:
        indexes = [comparison["index"] for comparison in rule.get("args", [])]
        if len(indexes) != len(set(indexes)):
            raise ProfileError(f"One argument is compared twice in the rule {rule['comment']!r}.")
        for name in rule["names"]:
            if all(pyseccomp.resolve_syscall(token, name) < 0 for _, token in ARCHITECTURES.values()):
                raise ProfileError(
                    f"libseccomp knows {name!r} on neither machine. If the call is newer than the library, "
                    "leave it out: calls that are not named fail with ENOSYS."
                )


def compile_filter(profile: Profile, token: int) -> bytes:
    """Return the classic BPF program for the ABI that libseccomp numbers `token`."""
    program = pyseccomp.SyscallFilter(pyseccomp.ERRNO(profile["defaultErrnoRet"]))
    # The library starts with the ABI of the machine it runs on.
    program.remove_arch(pyseccomp.Arch.NATIVE)
    program.add_arch(token)
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    # A binary search over call numbers in place of one comparison after another, for kernels that keep no
    # table of the calls a filter always allows (before Linux 5.11).
    program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    for rule in profile["syscalls"]:
        allow = rule["action"] == "SCMP_ACT_ALLOW"
        action = pyseccomp.ALLOW if allow else pyseccomp.ERRNO(rule["errnoRet"])
        if action == pyseccomp.ERRNO(profile["defaultErrnoRet"]):
            continue  # libseccomp refuses a rule that says what happens anyway
        comparisons = [
            pyseccomp.Arg(c["index"], OPERATORS[c["op"]], c["value"], c.get("valueTwo", 0))
            for c in rule.get("args", [])
        ]
        for name in rule["names"]:
            if pyseccomp.resolve_syscall(token, name) >= 0 and name not in UNCOUNTED:
                program.add_rule(action, name, *comparisons)
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def main(argv: list[str] | None = None) -> int:
    """Write the filters, or with `--check` compare them. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Compile the sandboxes' seccomp profile for bubblewrap.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a filter is stale"
    )
    check: bool = parser.parse_args(argv).check
    profile = load_profile()
    check_profile(profile)
    stale = []
    for architecture in profile["archMap"]:
        name, token = ARCHITECTURES[architecture["architecture"]]
        compiled = compile_filter(profile, token)
        path = HERE / name
        if not path.exists() or path.read_bytes() != compiled:
            stale.append(name)
            if not check:
                path.write_bytes(compiled)
    if stale and check:
        sys.stderr.write(
            f"Not what profile.json compiles to: {', '.join(stale)}. "
            "Run python -m codemode_executor.seccomp.compile and commit the result.\n"
        )
        return 1
    sys.stdout.write(f"{'Written' if stale else 'Up to date'}: {', '.join(stale) or 'all filters'}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
