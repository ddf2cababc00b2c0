"""What the kernel has killed for memory in a control group (cgroups(7))."""

import os

# The file that counts it in a group's folder, by version of the tree that the group is in.
COUNTERS = {1: "memory.oom_control", 2: "memory.events"}
# Where a sandbox finds that of its own group.
PLACES = {1: f"/sys/fs/cgroup/memory/{COUNTERS[1]}", 2: f"/sys/fs/cgroup/{COUNTERS[2]}"}
# Looked for once, before any fork: most sandboxes have one, some none, and none gets another.
_own = next((place for place in PLACES.values() if os.path.exists(place)), None)
_seen = 0


def kills(counter: str) -> int:
    """How many processes of a group were killed, by its counter; 0 when that cannot be read."""
    try:
        with open(counter, "rb") as file:
            for line in file:
                name, _, count = line.partition(b" ")
                if name == b"oom_kill":
                    return int(count)
    except (OSError, ValueError):
        pass
    return 0


def new_kills() -> int:
    """How many processes of this sandbox were killed since this was last asked.

    Asked in this process or in the one it was forked from. 0 where no control group of the sandbox's tells.
    """
    global _seen
    if _own is None:
        return 0
    now = kills(_own)
    new, _seen = now - _seen, now
    return new
