"""What a sandbox must not do, call by call, tried in a real container and in a real bubblewrap sandbox."""

import os
import platform
from dataclasses import dataclass
from typing import Any

import pytest

if os.environ.get("CI"):
    import pyseccomp  # type: ignore[import-untyped]  # annotated, but without the py.typed marker
else:
    pyseccomp = pytest.importorskip("pyseccomp")

MACHINE = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[platform.machine()]

Argument = int | str | None
PAGE = None
OWN = 0
MINUS_ONE = 2**64 - 1
# What is neither allowed nor refused by a rule of its own: ENOSYS, but EPERM with a Docker Engine that does
# not know `defaultErrnoRet` (20.10).
UNNAMED = "ENOSYS or EPERM"


@dataclass(frozen=True)
class Attempt:
    """A call, and the errno it must end with (or two of which it must be one)."""

    name: str
    call: str | int
    arguments: tuple[Argument, ...]
    outcome: str

    def as_json(self) -> list[Any]:
        """Give the call as the probe takes it."""
        number = pyseccomp.resolve_syscall(MACHINE, self.call) if isinstance(self.call, str) else self.call
        return [self.name, number, self.arguments]


def attempts(outcome: str, *calls: tuple[Any, ...]) -> list[Attempt]:
    """Name each call by itself and its arguments."""
    return [
        Attempt(
            f"{call}({', '.join('...' if a is PAGE else str(a) for a in arguments)})",
            call,
            arguments,
            outcome,
        )
        for call, *rest in calls
        for arguments in [tuple(rest)]
    ]


# With a kernel of the last years and no filter, an unprivileged process succeeds in these.
HARMFUL = [
    *attempts(
        "EPERM",
        ("ptrace", 0, 0, 0, 0),  # PTRACE_TRACEME
        ("process_vm_readv", 1, PAGE, 0, PAGE, 0, 0),
        ("process_vm_writev", 1, PAGE, 0, PAGE, 0, 0),
        ("setuid", 1000),
        ("setgid", 1000),
        ("setreuid", MINUS_ONE, MINUS_ONE),
        ("setregid", MINUS_ONE, MINUS_ONE),
        ("setresuid", MINUS_ONE, MINUS_ONE, MINUS_ONE),
        ("setresgid", MINUS_ONE, MINUS_ONE, MINUS_ONE),
        ("setfsuid", 1000),
        ("setfsgid", 1000),
        ("unshare", 0),
        ("mknodat", 0, "/tmp/pipe", 0o10600, 0),
        ("mknodat", 0, "/tmp/file", 0o100666, 0),
        ("kcmp", 1, 1, 0, 0, 0),
        ("mbind", 0, 0, 0, 0, 0, 0),
        ("adjtimex", PAGE),
        ("clock_adjtime", 0, PAGE),
        ("sched_setaffinity", OWN, 8, "\1"),
        ("sched_setscheduler", OWN, 3, PAGE),  # SCHED_BATCH
        ("sched_setparam", OWN, PAGE),
        ("sched_setattr", OWN, "\x30", 0),
        ("get_mempolicy", PAGE, 0, 0, 0, 0),
        ("set_mempolicy", 0, 0, 0),
        ("move_pages", OWN, 0, PAGE, PAGE, PAGE, 0),
        ("keyctl", 0, MINUS_ONE - 2, 1),  # KEYCTL_GET_KEYRING_ID of the session
        ("add_key", "user", "probe", "secret", 6, MINUS_ONE - 1),
        ("userfaultfd", 1),  # UFFD_USER_MODE_ONLY
        ("fanotify_init", 0x200, 0),  # FAN_REPORT_FID, allowed to anyone since Linux 5.13
        ("sync",),
    ),
    *attempts(
        "ENOSYS",
        ("io_uring_setup", 8, PAGE),
        ("io_setup", 8, PAGE),
        ("shmget", 0, 4096, 0o1600),
        ("semget", 0, 1, 0o1600),
        ("msgget", 0, 0o1600),
        ("mq_open", "probe", 0o102, 0o600, 0),
        ("memfd_secret", 0),
    ),
    *attempts(
        UNNAMED,
        ("personality", 0x0040000),  # ADDR_NO_RANDOMIZE
        ("personality", 8),  # PER_LINUX32
    ),
    *attempts(
        "EAFNOSUPPORT",
        ("socket", 16, 3, 0),  # AF_NETLINK
        ("socket", 2**32 + 16, 3, 0),  # the same to the kernel, which reads 32 bits
        ("socket", 40, 1, 0),  # AF_VSOCK
        ("socket", 2**32 + 40, 1, 0),
    ),
    *attempts(
        "EPROTONOSUPPORT",
        ("socket", 2, 1, 262),  # MPTCP
        ("socket", 10, 2, 136),  # UDP-Lite
    ),
]
if platform.machine() == "x86_64":
    HARMFUL += [
        *attempts("ENOSYS", ("modify_ldt", 0, PAGE, 64)),
        *attempts("EPERM", ("mknod", "/tmp/other_pipe", 0o10600, 0)),
    ]

# These a kernel refuses by itself, or not, according to its settings and age.
REFUSED = [
    *attempts(
        "EPERM",
        ("process_madvise", MINUS_ONE, PAGE, 0, 0, 0),
        ("pidfd_getfd", MINUS_ONE, 0, 0),
        ("setgroups", 0, 0),
        ("unshare", 0x10000000),  # CLONE_NEWUSER
        ("unshare", 0x10000),  # CLONE_THREAD
        ("setns", MINUS_ONE, 0),
        *(
            ("clone", flag | 17, 0, 0, 0, 0)
            for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
        ),
        ("clone", 0x7E020000 | 17, 0, 0, 0, 0),
        ("clone", 2**32 + 0x10000000 + 17, 0, 0, 0, 0),
        ("mount", "none", "/tmp", "tmpfs", 0, 0),
        ("umount2", "/proc", 2),
        ("pivot_root", "/tmp", "/tmp"),
        ("chroot", "/tmp"),
        ("open_tree", MINUS_ONE, "/", 1),
        ("move_mount", MINUS_ONE, PAGE, MINUS_ONE, PAGE, 0),
        ("fsopen", "tmpfs", 0),
        ("fsconfig", MINUS_ONE, 0, PAGE, PAGE, 0),
        ("fsmount", MINUS_ONE, 0, 0),
        ("fspick", MINUS_ONE, "/", 0),
        ("mount_setattr", MINUS_ONE, PAGE, 0, PAGE, 32),
        ("name_to_handle_at", MINUS_ONE - 99, "/usr", "\x80", PAGE, 0),
        ("open_by_handle_at", MINUS_ONE, PAGE, 0),
        ("mknodat", 0, "/tmp/null", 0o20666, 0x103),
        ("settimeofday", PAGE, 0),
        ("clock_settime", 0, PAGE),
        ("migrate_pages", OWN, 0, 0, 0),
        ("set_mempolicy_home_node", 0, 0, 0, 0),
        ("bpf", 0, PAGE, 64),
        ("perf_event_open", PAGE, 0, MINUS_ONE, MINUS_ONE, 0),
        ("request_key", "user", "probe", 0, 0),
        ("fanotify_mark", MINUS_ONE, 0, 0, 0, 0),
        ("userfaultfd", 0),
        ("syncfs", MINUS_ONE),
        ("acct", 0),
        ("init_module", 0, 0, PAGE),
        ("finit_module", MINUS_ONE, PAGE, 0),
        ("delete_module", "probe", 0),
        ("kexec_load", 0, 0, 0, 0),
        ("quotactl", 0, PAGE, 0, 0),
        ("quotactl_fd", MINUS_ONE, 0, 0, 0),
        ("reboot", 0, 0, 0, 0),
        ("sethostname", "probe", 5),
        ("setdomainname", "probe", 5),
        ("swapon", PAGE, 0),
        ("swapoff", PAGE),
        ("syslog", 2, PAGE, 64),
        ("vhangup",),
        ("ioctl", 0, 0x5412, "x"),  # TIOCSTI
        ("ioctl", 0, 0x541C, "\x03"),  # TIOCLINUX
        ("ioctl", 0, 0x541D, PAGE),  # TIOCCONS
        ("ioctl", 0, 0x5423, PAGE),  # TIOCSETD
        ("ioctl", 0, 2**32 + 0x5412, "x"),
        ("ioctl", 0, 2**64 - 2**32 + 0x5412, "x"),
        ("socket", 2, 3, 255),  # SOCK_RAW
        ("socket", 10, 3, 58),
    ),
    *attempts(
        "ENOSYS",
        ("clone3", PAGE, 64),
        ("io_uring_enter", MINUS_ONE, 0, 0, 0, 0, 0),
        ("io_uring_register", MINUS_ONE, 0, 0, 0),
        ("io_submit", 0, 0, 0),
        ("io_getevents", 0, 0, 0, 0, 0),
        ("io_pgetevents", 0, 0, 0, 0, 0, 0),
        ("io_cancel", 0, 0, 0),
        ("io_destroy", 0),
        *((name, 0, 0, 0, 0) for name in ("shmat", "shmctl", "shmdt", "semop", "semctl", "semtimedop")),
        *((name, 0, 0, 0, 0) for name in ("msgsnd", "msgrcv", "msgctl", "mq_unlink", "mq_timedsend")),
        *((name, 0, 0, 0, 0) for name in ("mq_timedreceive", "mq_notify", "mq_getsetattr")),
        ("process_mrelease", MINUS_ONE, 0),
        (451, 0, 0, 0, 0),  # cachestat, newer than the profile, as are
        (462, 0, 0, 0),  # mseal,
        (467, 0, 0, 0, 0, 0),  # open_tree_attr
        (511,),  # and what no kernel has yet
    ),
    *attempts(
        UNNAMED,
        ("ioctl", 0, 0xC018AA3F, PAGE),  # UFFDIO_API
        ("ioctl", 0, 2**32 + 0x5401, PAGE),  # TCGETS, but for the high bits
        ("socket", 2, 5, 0),  # SOCK_SEQPACKET
        ("socket", 2, 6, 0),  # SOCK_DCCP
    ),
    *attempts(
        "EAFNOSUPPORT",
        ("socket", 0, 1, 0),
        *(("socket", family, 3, 0) for family in range(3, 10)),
        ("socket", 17, 3, 0),  # AF_PACKET
        ("socket", 38, 5, 0),  # AF_ALG
        ("socket", 44, 3, 0),  # AF_XDP
        ("socket", MINUS_ONE, 1, 0),
        ("socketpair", 30, 2, 0, PAGE),  # AF_TIPC
        ("socketpair", 2, 1, 0, PAGE),
    ),
    *attempts(
        "EPROTONOSUPPORT",
        ("socket", 2, 1, 132),  # SCTP
        ("socket", 10, 2, 33),  # DCCP
    ),
]
if platform.machine() == "x86_64":
    REFUSED += attempts("EPERM", ("iopl", 3), ("ioperm", 0, 1, 1), ("kexec_file_load", 0, 0, 0, 0, 0))

# Ways into another ABI of the machine, with the number of getpid.
OTHER_ABIS: list[tuple[str, str | int, str]] = []
if platform.machine() == "x86_64":
    OTHER_ABIS = [
        ("i386", "b814000000cd80c3", "SIGSYS"),  # mov eax, 20; int 0x80; ret
        ("x32", 0x40000000 + 39, "SIGSYS or ENOSYS"),  # ENOSYS where the kernel is built without it
    ]


@pytest.fixture(scope="module")
def outcomes(run_probe: Any) -> dict[str, str]:
    """Try all of them in one sandbox."""
    calls = [attempt.as_json() for attempt in HARMFUL + REFUSED]
    calls += [[name, number, []] for name, number, _ in OTHER_ABIS]
    result: dict[str, str] = run_probe("probe_calls.py", calls)
    return result


@pytest.mark.parametrize("attempt", HARMFUL + REFUSED, ids=lambda attempt: attempt.name)
def test_refused(attempt: Attempt, outcomes: dict[str, str]) -> None:
    """The call fails, with the error that programs understand."""
    assert outcomes[attempt.name] in attempt.outcome.split(" or ")


@pytest.mark.parametrize(("name", "outcome"), [(name, outcome) for name, _, outcome in OTHER_ABIS])
def test_other_abi_is_closed(name: str, outcome: str, outcomes: dict[str, str]) -> None:
    """A call of another ABI kills its caller, or does not exist."""
    assert outcomes[name] in outcome.split(" or ")


def test_without_the_filter_the_harmful_calls_succeed(run_probe_unfiltered: Any) -> None:
    """The attempts are real: most do their work where nothing stops them.

    "Most", because a kernel may be built or set up without one or the other.
    """
    reached = run_probe_unfiltered("probe_calls.py", [attempt.as_json() for attempt in HARMFUL])
    failed = {name: outcome for name, outcome in reached.items() if outcome != "ok"}
    assert len(failed) < len(HARMFUL) / 4, failed
