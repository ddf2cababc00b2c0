"""Probe: make the system calls it is given, each in a process of its own, and report how each ended.

The argument is a list of `[name, number, arguments]`. An argument is an integer, a string (passed as bytes
that end with a zero) or null (a page of zeros). A number in the form of a string is machine code, run as a
function. The report of a call is "ok", the name of an errno, or the name of the signal that killed it.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(number: int | str, arguments: list[int | str | None]) -> int:
    """Return 0 or an errno."""
    converted: list[ctypes.c_ulong | ctypes.Array[ctypes.c_char]] = []
    for argument in arguments:
        if isinstance(argument, int):
            converted.append(ctypes.c_ulong(argument))
        else:
            converted.append(ctypes.create_string_buffer((argument or "").encode(), 4096))
    if isinstance(number, str):
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex(number))
        result: int = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        return -result if -4096 < result < 0 else 0
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *converted) == -1 else 0


report = {}
for name, number, arguments in json.loads(sys.argv[1]):
    # Calls that wait, or that fork, end by the alarm.
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        os._exit(call(number, arguments))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        report[name] = signal.Signals(os.WTERMSIG(status)).name
    else:
        code = os.WEXITSTATUS(status)
        report[name] = errno.errorcode[code] if code else "ok"
sys.stdout.write(json.dumps(report) + "\n")
