"""Control groups for sandboxes that no engine makes any for, where this machine gives some.

The kernel then counts what all processes of a sandbox use together, to the
page, and nothing has to be measured. As root there are groups on nearly every
machine; an ordinary user has them where systemd hands over a part of the tree,
as in a graphical session or in a service with `Delegate=yes`.
"""

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Self

from codemode_sandbox import oom

from codemode_executor.backends import liveness
from codemode_executor.backends.group_trees import Controller, Parent, make_parents, remove_tree
from codemode_executor.limits import SandboxLimits

_PREFIX = "codemode-"
_PERIOD_US = 100_000


class ControlGroup:
    """The group of one sandbox, in every tree.

    Args:
        folders: Its folder in each tree, with the version of the tree.
    """

    def __init__(self, folders: Mapping[Path, int]) -> None:
        self._folders = folders

    def add(self, pid: int) -> None:
        """Move a process in; what it starts from then on is in the group as well. Raises OSError."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def oom_counter(self) -> tuple[Path, str] | None:
        """The file that counts what the kernel has killed for memory, and where a sandbox looks for it."""
        for folder, version in self._folders.items():
            if (counter := folder / oom.COUNTERS[version]).exists():
                return counter, oom.PLACES[version]
        return None

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed anything in it for memory."""
        return self.oom_counter is not None and oom.kills(str(self.oom_counter[0])) > 0

    def remove(self) -> None:
        """Remove it, when its processes have ended; what is not empty is left to `ControlGroups.close`."""
        for folder in self._folders:
            with suppress(OSError):
                folder.rmdir()


class ControlGroups:
    """Makes groups. `find` makes one of these, if this machine lets it."""

    def __init__(self, parents: list[Parent], lease: liveness.Lease) -> None:
        self._parents = parents
        self._lease = lease
        self._numbers = count(1)

    @classmethod
    def find(cls) -> Self | None:
        """Find where groups can be made, and try it with a process; None where they cannot."""
        lease = liveness.Lease()
        groups = cls(make_parents(f"{_PREFIX}{lease.name}"), lease)
        if "memory" in groups.controllers and groups._works():
            return groups
        groups.close()
        return None

    @property
    def controllers(self) -> frozenset[Controller]:
        """What groups can bind here."""
        return frozenset[Controller]().union(*(parent.controllers for parent in self._parents))

    @property
    def count_network(self) -> bool:
        """Whether what network connections hold counts as memory; in version 1 it does not."""
        return all(parent.version == 2 for parent in self._parents if "memory" in parent.controllers)

    def make(self, limits: SandboxLimits) -> ControlGroup:
        """Make a group with limits. Raises OSError."""
        name = str(next(self._numbers))
        group = ControlGroup({parent.folder / name: parent.version for parent in self._parents})
        try:
            for parent in self._parents:
                folder = parent.folder / name
                folder.mkdir()
                for controller in parent.controllers:
                    for file, value in _settings(parent.version, controller, limits).items():
                        # Not every kernel limits swap.
                        if (folder / file).exists():
                            (folder / file).write_text(value)
        except OSError:
            group.remove()
            raise
        return group

    def _works(self) -> bool:
        try:
            group = self.make(SandboxLimits())
        except OSError:
            return False
        command = [sys.executable, "-I", "-S", "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                group.add(process.pid)
            except OSError:
                return False
            finally:
                process.kill()
                process.wait()
                group.remove()
        return True

    def remove_orphans(self) -> int:
        """Remove the groups of executors that died; returns of how many."""
        found = {path.name for parent in self._parents for path in parent.folder.parent.glob(f"{_PREFIX}*")}
        dead = [name for name in found if liveness.has_died(name.removeprefix(_PREFIX))]
        for name in dead:
            for parent in self._parents:
                remove_tree(parent.folder.parent / name)
        return len(dead)

    def close(self) -> None:
        """Remove all that is left."""
        for parent in self._parents:
            remove_tree(parent.folder)
        self._lease.release()


def _settings(version: int, controller: Controller, limits: SandboxLimits) -> dict[str, str]:
    """What is written to which file of a group, in this order."""
    memory, quota = str(limits.memory_bytes), str(int(limits.cpus * _PERIOD_US))
    if controller == "pids":
        return {"pids.max": str(limits.processes)}
    if controller == "memory":
        if version == 1:
            # Memory and swap together: as much as memory alone, so no swap.
            return {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory}
        return {"memory.max": memory, "memory.swap.max": "0"}
    if version == 1:
        return {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
    return {"cpu.max": f"{quota} {_PERIOD_US}"}
