"""Code sees no network, no host and no secret, and the kernel refuses it what no ordinary program needs."""

import secrets
import socket
import sys
from pathlib import Path

import pytest

from codemode.errors import CodemodeError
from tests.safety.arena import Arena
from tests.safety.conftest import SECRET


def ask(arena: Arena, code: str) -> object:
    """Run code as the attacker and return its value."""
    arena.codemode.with_context(client_id="attacker")
    answer = arena.codemode.run(code)
    assert answer.success, answer.error_details
    return answer.value


# Each is tried in the sandbox; the value is the name of the error that it must end in.
NETWORK = {
    "an address of the internet": "socket.create_connection(('1.1.1.1', 53), 2)",
    "an address, by UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
    "an IPv6 address": "socket.create_connection(('2606:4700:4700::1111', 53), 2)",
    "the metadata service of a cloud": "socket.create_connection(('169.254.169.254', 80), 2)",
    "a name": "socket.getaddrinfo('example.org', 80)",
    "AF_VSOCK": "socket.socket(40, socket.SOCK_STREAM)",
    "AF_NETLINK": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "AF_PACKET": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "AF_ALG": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "AF_BLUETOOTH": "socket.socket(31, socket.SOCK_RAW, 1)",
    "AF_XDP": "socket.socket(44, socket.SOCK_RAW)",
    "AF_KCM": "socket.socket(41, socket.SOCK_DGRAM)",
    "a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "a packet socket of old": "socket.socket(socket.AF_INET, 10, 3)",
    "a socket of the host's": "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "where its supervisor met the executor": "socket.socket(socket.AF_UNIX).connect('/tmp/.link')",
}  # fmt: skip

FILES = {
    "process 1's environment": "open('/proc/1/environ').read()",
    "process 1's memory": "open('/proc/1/mem', 'rb').read(1)",
    "process 1's map": "open('/proc/1/maps').read()",
    "process 1's descriptors": "os.listdir('/proc/1/fd')",
    "process 1's root": "os.listdir('/proc/1/root/')",
    "process 1's working directory": "os.listdir('/proc/1/cwd/')",
    "process 1's program": "os.readlink('/proc/1/exe')",
    "process 1's system call": "open('/proc/1/syscall').read()",
    "process 1's stack": "open('/proc/1/stack').read()",
    "process 1's standing": "open('/proc/1/oom_score_adj', 'w').write('1000')",
    "process 1's name": "open('/proc/1/comm', 'w').write('x')",
    "the kernel's memory": "open('/dev/mem', 'rb').read(1) or open('/proc/kcore', 'rb').read(64)[1]",
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
    "the kernel's settings for files": "open('/proc/sys/fs/file-max', 'w').write('1')",
    "the kernel's keys": "open('/proc/sysrq-trigger', 'w').write('b')",
    "devices": "os.mknod('/tmp/device', 0o600 | 0o060000, os.makedev(8, 0))",
    "a named pipe": "os.mkfifo('/tmp/fifo')",
    "the root of the file system": "open('/x', 'w')",
    "programs": "open('/usr/bin/x', 'w')",
    "packages": "open(os.path.join(os.path.dirname(os.__file__), 'x'), 'w')",
    "the runner": "open(os.path.join(sys.modules['codemode_sandbox'].__path__[0], 'frames.py'), 'a')",
    "passwords": "open('/etc/shadow').read()",
    "the list of users": "open('/etc/passwd', 'a').write('x')",
    "devices' folder": "open('/dev/x', 'w')",
    "what the system shows of itself": "open('/sys/kernel/mm/transparent_hugepage/enabled', 'w').write('x')",
    "the engine's socket": "os.stat('/var/run/docker.sock')",
    "root's home": "os.listdir('/root')[0]",
    "homes": "os.listdir('/home')[0]",
    "control groups": "open('/sys/fs/cgroup/cgroup.procs', 'w').write('0')",
}

# Calls through ctypes, with what x86-64 and aarch64 call them.
CALLS = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268),
    "pivot_root": (155, 41),
    "chroot": (161, 51), "ptrace": (101, 117), "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217),
    "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mknodat": (259, 33), "reboot": (169, 142), "kexec_load": (246, 104),
    "init_module": (175, 105), "perf_event_open": (298, 241), "process_vm_readv": (310, 270),
    "open_by_handle_at": (304, 265), "fsopen": (430, 430), "move_mount": (429, 429), "open_tree": (428, 428),
    "swapon": (167, 224), "settimeofday": (164, 170), "sethostname": (170, 161), "syslog": (103, 116),
    "quotactl": (179, 60), "fanotify_init": (300, 262), "setuid": (105, 146), "setgid": (106, 144),
    "iopl": (172, None), "modify_ldt": (154, None), "personality": (135, 92),
    "sched_setscheduler": (144, 119),
}
column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
result = {}
for name, columns in numbers.items():
    if columns[column] is None:
        continue
    child = os.fork()
    if child == 0:
        # Arguments that make some sense to each: flags of all new namespaces, the attacker's own process.
        arguments = {"unshare": (0x10000000,), "setns": (3, 0), "setuid": (0,), "setgid": (0,),
                     "shmget": (0, 4096, 0o1600), "semget": (0, 1, 0o1600), "msgget": (0, 0o1600),
                     "personality": (0x0040000,), "userfaultfd": (1,)}.get(name, (0, 0, 0, 0, 0, 0))
        made = libc.syscall(ctypes.c_long(columns[column]), *map(ctypes.c_ulong, arguments))
        os._exit(0 if made != -1 else min(ctypes.get_errno(), 255))
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    result[name] = errno.errorcode.get(code, str(code)) if code else "done"
"""


def outcomes(arena: Arena, tried: dict[str, str]) -> dict[str, str]:
    """Try expressions in one execution; for each the name of its error, or what it gave."""
    code = ["import os, socket, sys", "result = {}"]
    for name, expression in tried.items():
        code += [
            "try:",
            f"    result[{name!r}] = 'got ' + repr({expression})[:100]",
            "except Exception as error:",
            f"    result[{name!r}] = type(error).__name__",
        ]
    found = ask(arena, "\n".join(code))
    assert isinstance(found, dict)
    return found


def test_there_is_no_network_of_any_kind(arena: Arena) -> None:
    with arena.unharmed():
        found = outcomes(arena, NETWORK)
    assert {name: how for name, how in found.items() if how.startswith("got")} == {}


def test_who_listens_on_the_host_hears_nothing(arena: Arena) -> None:
    name = f"codemode-test-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as by_port, socket.socket(socket.AF_UNIX) as by_name:
        by_name.bind(f"\0{name}")
        by_name.listen()
        port = by_port.getsockname()[1]
        attempts = {
            "the host's loopback": f"socket.create_connection(('127.0.0.1', {port}), 2)",
            "its abstract socket": f"socket.socket(socket.AF_UNIX).connect('\\0{name}')",
        }
        # Both are there, for who is on the host.
        socket.create_connection(("127.0.0.1", port), 2).close()
        with socket.socket(socket.AF_UNIX) as here:
            here.connect(f"\0{name}")
        with arena.unharmed():
            found = outcomes(arena, attempts)
    assert {name: how for name, how in found.items() if how.startswith("got")} == {}


def test_there_is_no_interface_but_loopback(arena: Arena) -> None:
    interfaces = ask(arena, "result = [line.partition(':')[0].strip() for line in open('/proc/net/dev')][2:]")
    assert interfaces in (["lo"], [])


def test_files_of_the_host_and_of_the_system_are_out_of_reach(arena: Arena) -> None:
    with arena.unharmed():
        found = outcomes(arena, FILES)
    assert {name: how for name, how in found.items() if how.startswith("got")} == {}


def test_the_kernel_refuses_what_no_ordinary_program_needs(arena: Arena) -> None:
    with arena.unharmed():
        found = ask(arena, CALLS)
    assert isinstance(found, dict)
    assert {name: how for name, how in found.items() if how not in {"EPERM", "ENOSYS"}} == {}


def test_the_process_has_no_privileges_and_can_gain_none(arena: Arena) -> None:
    status = ask(
        arena,
        "lines = [line.partition(':') for line in open('/proc/self/status')]\n"
        "result = {name: value.strip() for name, _, value in lines}",
    )
    assert isinstance(status, dict)
    assert {
        name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert "0" not in status.get("Groups", "").split()


def test_no_program_of_the_sandbox_changes_its_user(arena: Arena) -> None:
    code = """
import os
result = []
for folder, folders, files in os.walk("/"):
    if folder in ("/proc", "/sys"):
        folders.clear()
    for name in files:
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
        except OSError:
            continue
        if mode & 0o170000 == 0o100000 and mode & 0o6000:
            result.append(os.path.join(folder, name))
"""
    if arena.backend == "bubblewrap":
        # /usr is the host's; its mount is what takes the bits' meaning away.
        mounts = ask(arena, "result = [line.split() for line in open('/proc/self/mounts')]")
        assert isinstance(mounts, list)
        assert all("nosuid" in mount[3] for mount in mounts if mount[2] != "proc"), mounts
    else:
        assert ask(arena, code) == []


def test_only_the_places_made_for_it_can_be_written(arena: Arena) -> None:
    mounts = ask(arena, "result = [line.split() for line in open('/proc/self/mounts')]")
    assert isinstance(mounts, list)
    writable = {mount[1] for mount in mounts if "ro" not in mount[3].split(",")}
    devices = {
        f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "pts", "mqueue")
    }
    assert writable <= {"/tmp", "/dev/shm", "/dev", "/proc", "/sys/fs/cgroup"} | devices | {
        # What Docker covers, or shows as empty.
        mount[1]
        for mount in mounts
        if mount[1].startswith("/proc/")
    }
    found = outcomes(
        arena,
        {
            path: f"open('{path}/x', 'w')"
            for path in ("/", "/dev", "/proc", "/dev/pts", "/sys", "/sys/fs/cgroup", "/etc")
        },
    )
    assert {path: how for path, how in found.items() if how.startswith("got")} == {}


# bubblewrap mounts no file system without the right to execute.
@pytest.mark.parametrize("arena", ["docker"], indirect=True)
def test_programs_cannot_be_run_from_where_they_can_be_written(arena: Arena) -> None:
    assert outcomes(
        arena,
        {
            folder: f"os.execv(__import__('shutil').copy('/bin/true', '{folder}/true'), ['true'])"
            for folder in ("/tmp", "/dev/shm")
        },
    ) == {"/tmp": "PermissionError", "/dev/shm": "PermissionError"}


def test_no_secret_of_the_executor_is_anywhere(arena: Arena) -> None:
    assert arena.codemode.local_executor is not None
    key = arena.codemode.local_executor.api_key
    code = f"""
import os
# Put together here, so that the code itself is not found.
secrets = [{SECRET[:8]!r} + {SECRET[8:]!r}, {key[:8]!r} + {key[8:]!r}]
secrets = [secret.encode() for secret in secrets]
result = []
def look(name, data):
    result.extend(name for secret in secrets if secret in data)
look("environment", repr(dict(os.environ)).encode())
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "comm", "status", "mounts", "mountinfo", "cgroup"):
        try:
            look(f"/proc/{{pid}}/{{name}}", open(f"/proc/{{pid}}/{{name}}", "rb").read())
        except OSError:
            pass
for top in ("/tmp", "/etc", "/run", "/var", "/home", "/root", "/mnt", "/srv", "/dev/shm"):
    for folder, folders, files in os.walk(top):
        for name in files:
            try:
                look(os.path.join(folder, name), open(os.path.join(folder, name), "rb").read(1 << 20))
            except OSError:
                pass
"""
    assert ask(arena, code) == []


def test_nothing_tells_of_the_hosts_paths(arena: Arena) -> None:
    code = """
import os, sys
result = [*sys.path, *map(str, sys.orig_argv), os.getcwd(), os.path.expanduser("~"), *os.environ.values()]
result += [getattr(module, "__file__", None) or "" for module in [*sys.modules.values()]]
result += open("/proc/1/cmdline").read().split("\\0")
"""
    told = ask(arena, code)
    assert isinstance(told, list)
    here = {str(Path(__file__).parents[2]), str(Path.home())} - {"/"}
    if arena.backend == "docker":
        here.add(sys.prefix)
    assert [path for path in told for place in here if place in path] == []


def test_a_file_cannot_be_taken_from_outside_the_working_directory(arena: Arena, tmp_path: Path) -> None:
    arena.codemode.with_context(client_id="attacker")
    with arena.unharmed(), arena.codemode.session() as session:
        session.execute("""
import os
os.symlink("/etc/passwd", "link")
os.symlink("/", "root")
os.symlink("/dev/zero", "endless")
os.mkdir("folder")
""")
        for path in (
            "link",
            "root/etc/passwd",
            "endless",
            "folder",
            "../home",
            "/etc/passwd",
            "none",
            "a\0b",
            "",
        ):
            with pytest.raises((CodemodeError, ValueError)):
                session.get_file(path, tmp_path / "taken")
        source = tmp_path / "source"
        source.write_text("x")
        for path in ("../x", "/tmp/x", "root/tmp/x", "folder", "link"):
            with pytest.raises((CodemodeError, ValueError)):
                session.put_file(source, path)
        assert session.run("1 + 1").value == 2
    assert not (tmp_path / "taken").exists()
