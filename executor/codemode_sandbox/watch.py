"""Limits on the sum over a sandbox's processes, where no control group counts it.

Resource limits bind one process each, so a program that forks can use any
multiple of them. The supervisor measures instead, many times a second, and
kills what runs when the sum is above the limit.
"""

import mmap
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codemode_sandbox import kernel_memory

INTERVAL = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Bytes of page table for each page.
_TABLE_ENTRY = 8
# A map is read again when its size has changed, and after so many measures in any case.
_MAX_AGE = 10


class MemoryWatch:
    """Measures the memory that a sandbox uses: anonymous pages, shared memory, and files in memory.

    Args:
        limit: The exact measure is slow, so it is taken only when a quick
            measure, which is never below it, is above this many bytes.
        filesystems: Mount points of file systems that live in memory.
    """

    def __init__(self, limit: int, filesystems: tuple[str, ...]) -> None:
        self._limit = limit
        self._filesystems = filesystems
        self._device = _shared_memory_device()
        self._mapped: dict[str, _Mapped] = {}
        self._sockets_before = kernel_memory.unix_sockets()

    def bytes_in_use(self) -> int:
        """The bytes in use now, of all processes together."""
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        self._mapped = {pid: known for pid, known in self._mapped.items() if pid in pids}
        sockets = kernel_memory.unix_sockets() - self._sockets_before
        apart = self._in_filesystems() + self._in_descriptors(pids)
        apart += kernel_memory.unix_socket_bytes(sockets) + kernel_memory.network_bytes()
        rough = apart
        for pid in pids:
            with suppress(OSError, ValueError, IndexError):
                rough += _rough_bytes(pid)
        if rough <= self._limit:
            return rough
        exact = apart
        for pid in pids:
            # A process that hides its memory map (not dumpable) is counted roughly.
            try:
                exact += _proportional_bytes(pid)
            except PermissionError:
                exact += _rough_bytes(pid)
            except (OSError, ValueError, IndexError):
                continue
        return exact

    def _in_filesystems(self) -> int:
        files = 0
        for path in self._filesystems:
            with suppress(OSError):
                numbers = os.statvfs(path)
                files += (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize
        return files

    def _in_descriptors(self, pids: list[str]) -> int:
        """Memory that no file system shows and that need not be in any process's pages.

        Shared memory by inode, because processes share it: as much as there is
        where a descriptor tells (a memfd), else as much as is mapped. And pipes.
        """
        pipes: set[int] = set()
        by_descriptor: dict[int, int] = {}
        by_mapping: dict[int, int] = {}
        hidden = 0
        for pid in pids:
            try:
                for descriptor in os.scandir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        status = descriptor.stat()
                        if status.st_dev == self._device:
                            by_descriptor[status.st_ino] = status.st_blocks * 512
                        elif stat.S_ISFIFO(status.st_mode):
                            pipes.add(status.st_ino)
                for inode, extent in self._mappings(pid).items():
                    by_mapping[inode] = max(extent, by_mapping.get(inode, 0))
            except PermissionError:
                # All that it has mapped beyond what it was forked with.
                with suppress(OSError, ValueError, IndexError):
                    hidden += max(0, _virtual_bytes(pid) - _virtual_bytes("self"))
            except (OSError, ValueError, IndexError):
                continue
        return hidden + sum((by_mapping | by_descriptor).values()) + kernel_memory.pipe_bytes(len(pipes))

    def _mappings(self, pid: str) -> dict[int, int]:
        size = _virtual_bytes(pid)
        known = self._mapped.get(pid)
        if known is not None and known.size == size and known.age < _MAX_AGE:
            known.age += 1
            return known.extents
        extents: dict[int, int] = {}
        device = f"{os.major(self._device):02x}:{os.minor(self._device):02x}"
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            for line in file:
                span, _, offset, where, inode, *_ = line.split(None, 5)
                if where == device:
                    begin, _, end = span.partition("-")
                    extent = int(offset, 16) + int(end, 16) - int(begin, 16)
                    extents[int(inode)] = max(extent, extents.get(int(inode), 0))
        self._mapped[pid] = _Mapped(size, extents)
        return extents


@dataclass(slots=True)
class _Mapped:
    """The shared memory in a process's map, by inode, as it was `age` measures ago."""

    size: int
    extents: dict[int, int]
    age: int = 0


def _shared_memory_device() -> int:
    """The device number of the file system, mounted nowhere, that all shared memory is on."""
    with mmap.mmap(-1, _PAGE), open("/proc/self/maps") as file:
        for line in file:
            if line.endswith("/dev/zero (deleted)\n"):
                major, _, minor = line.split(None, 5)[3].partition(":")
                return os.makedev(int(major, 16), int(minor, 16))
    raise OSError("no shared memory in /proc/self/maps")


def _virtual_bytes(pid: str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * _PAGE


def _rough_bytes(pid: str) -> int:
    # Resident and not backed by a file, and the tables that all its pages would need. What is shared since a
    # fork counts once per process.
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE + int(fields[0]) * _TABLE_ENTRY


def _proportional_bytes(pid: str) -> int:
    own = _kilobytes(pid, "smaps_rollup", "Pss_Anon:") + _kilobytes(pid, "status", "VmPTE:")
    return own * 1024


def _kilobytes(pid: str, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def inodes_in_use(paths: tuple[str, ...]) -> int:
    """Number of files and directories on the file systems of these paths."""
    found = 0
    for path in paths:
        with suppress(OSError):
            numbers = os.statvfs(path)
            found += numbers.f_files - numbers.f_ffree
    return found
