"""Limits on the sum over a sandbox's processes, for machines whose kernel gives no control group.

Resource limits bind one process each, so a program that forks can use any
multiple of them. The supervisor measures instead, many times a second, and
kills what runs when the sum is above the limit.
"""

import os
from contextlib import suppress
from pathlib import Path

INTERVAL = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _process_ids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _rough_bytes(pid: str) -> int:
    # Resident and not backed by a file. Counts pages shared since a fork once per process.
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE


def _proportional_bytes(pid: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_in_use(limit: int, filesystems: tuple[str, ...]) -> int:
    """Bytes of memory the sandbox uses: anonymous pages of all processes, and files in memory.

    Args:
        limit: The exact measure is slow, so it is taken only when a quick
            measure, which is never below it, is above this many bytes.
        filesystems: Mount points of file systems that live in memory.
    """
    files = 0
    for path in filesystems:
        with suppress(OSError):
            numbers = os.statvfs(path)
            files += (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize
    rough = files
    pids = _process_ids()
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            rough += _rough_bytes(pid)
    if rough <= limit:
        return rough
    exact = files
    for pid in pids:
        # A process that hides its memory map (not dumpable) is counted roughly.
        try:
            exact += _proportional_bytes(pid)
        except PermissionError:
            exact += _rough_bytes(pid)
        except (OSError, ValueError, IndexError):
            continue
    return exact


def inodes_in_use(path: str) -> int:
    """Number of files and directories on the file system of `path`."""
    numbers = os.statvfs(path)
    return numbers.f_files - numbers.f_ffree
