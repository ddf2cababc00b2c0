"""The system calls a sandbox may make, in the two forms the backends need.

`profile.json` is the one source, in the format of the Docker Engine, which compiles it for itself. Bubblewrap
takes a compiled filter instead: `x86_64.bpf` and `aarch64.bpf`, made from the same file by
`python -m codemode_executor.seccomp.compile`, so that nothing has to be compiled where sandboxes run.

The profile is an allow-list. Starting from what Docker allows a container without capabilities, it takes
away what the code in a sandbox has no use for. Its `comment` fields give the reasons; these are the rules
behind them:

* What is refused (another user, a mount, a clock) fails with EPERM, as it does for anyone without
  privileges. What is absent (io_uring, System V IPC, clone3) fails with ENOSYS, as on a kernel built without
  it, and so does every call that is not named, so that a C library newer than the profile takes its older
  way.
* An argument that has to have a certain value is compared in all 64 bits, also where the kernel reads 32: a
  value with high bits set is never taken for an allowed one.
* Calls of another ABI (i386 or x32 on x86_64, 32-bit ARM on aarch64) kill the caller.
* `memfd_create` and `execveat` are allowed. A memfd can be executed in spite of a `noexec` /tmp, but
  `noexec` was never a wall: code that already runs can map anonymous memory as executable, and some builds
  of libffi need one or the other. What contains a program is this profile, which every program inherits.
  The compiled filters leave `memfd_create` out all the same: a memfd sent to nobody is memory that only a
  control group counts, which a container has and bubblewrap's sandboxes need not have.

Both forms assume `no_new_privs` and no capabilities. The Docker backend must set `no-new-privileges`:
without it the runtime installs the filter before it changes user, which the filter refuses.
"""

import platform
from importlib import resources

__all__ = ["UnsupportedMachineError", "compiled_filter", "docker_profile"]

# What `uname -m` and others call the machines there is a filter for.
_FILTERS = {
    "aarch64": "aarch64.bpf",
    "amd64": "x86_64.bpf",
    "arm64": "aarch64.bpf",
    "x86_64": "x86_64.bpf",
}


class UnsupportedMachineError(NotImplementedError):
    """There is no compiled filter for this kind of machine.

    Attributes:
        machine: The machine's name, as `uname -m` gives it.
    """

    def __init__(self, machine: str) -> None:
        """Make the error for `machine`."""
        super().__init__(machine)
        self.machine = machine

    def __str__(self) -> str:
        """Say what follows from it and what to do."""
        return (
            f"No seccomp filter is compiled for the machine {self.machine!r} (there is one for x86_64 and "
            "one for aarch64), so bubblewrap sandboxes cannot be started here. Install Docker and use the "
            "docker backend, whose engine compiles the rules itself."
        )


def docker_profile() -> str:
    """Return the profile as JSON text, to follow `seccomp=` in a container's `security_opt`."""
    return resources.files(__name__).joinpath("profile.json").read_text(encoding="utf-8")


def compiled_filter(machine: str | None = None) -> bytes:
    """Return the filter as classic BPF, to be written to the descriptor that `bwrap --seccomp FD` reads.

    Args:
        machine: What `uname -m` says of the machine the sandbox runs on; by default, this one.

    Raises:
        UnsupportedMachineError: No filter is compiled for that machine.
    """
    if machine is None:
        machine = platform.machine()
    name = _FILTERS.get(machine.lower())
    if name is None:
        raise UnsupportedMachineError(machine)
    return resources.files(__name__).joinpath(name).read_bytes()
