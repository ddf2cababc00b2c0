"""Run a command without privileges, for tests that run as root: `become_unprivileged.py COMMAND...`.

Bubblewrap has to be shown to work unprivileged, but root's own Python may lie in a folder nobody else can
enter. So the folders named in the environment variable `EXPOSE` (`from=to`, separated by colons) are bound to
places that can be entered, in a mount namespace that ends with the command.
"""

import ctypes
import os
import sys
from pathlib import Path

USER = 1_700_000_001
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


def main() -> None:
    """Bind the folders, change user, execute the command."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    # A fresh file system over /run, so that nothing is left behind on the machine's own.
    check(libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"))
    for pair in os.environ["EXPOSE"].split(":"):
        source, target = pair.split("=")
        Path(target).mkdir(parents=True)
        check(libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None))
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.execv(sys.argv[1], sys.argv[1:])


main()
