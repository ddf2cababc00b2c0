"""Where on this machine an executor may make control groups of its own (cgroups(7))."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Controller = Literal["memory", "pids", "cpu"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu")
# Where an executor goes when it leaves its place to the groups of its sandboxes.
_OWN = "executor"


@dataclass(frozen=True, slots=True)
class Parent:
    """A group of an executor's, for the groups of its sandboxes.

    Attributes:
        version: Of the tree it is in: 1, where controllers may have trees of their own, or 2.
        folder: Where it is.
        controllers: Those that the groups in it have.
    """

    version: int
    folder: Path
    controllers: frozenset[Controller]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree of groups, and the place of this process in it."""

    version: int
    place: Path
    controllers: frozenset[Controller]


def make_parents(name: str) -> list[Parent]:
    """Make a group of this name in every tree in which that is allowed and of use."""
    return [parent for tree in _trees() if (parent := _make_parent(tree, name)) is not None]


def remove_tree(folder: Path) -> None:
    """Remove a group with the groups in it, as far as they have no processes."""
    with suppress(OSError):
        for child in [path for path in folder.iterdir() if path.is_dir()]:
            with suppress(OSError):
                child.rmdir()
        folder.rmdir()


def _trees() -> Iterator[_Tree]:
    """The trees that this process sees, from `/proc/self/mountinfo` and `/proc/self/cgroup`."""
    places: dict[str, str] = {}
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            places |= dict.fromkeys(names.split(","), path)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split(" ")[3:5]
        if kind == "cgroup2":
            version, key, found = 2, "", frozenset(CONTROLLERS)
        elif kind == "cgroup":
            found = frozenset(name for name in CONTROLLERS if name in options.split(","))
            version, key = 1, next(iter(found), "")
        else:
            continue
        # A container may see a part of the tree in which its own place is not.
        if found and key in places and Path(places[key]).is_relative_to(root):
            yield _Tree(version, Path(point) / Path(places[key]).relative_to(root), found)


def _make_parent(tree: _Tree, name: str) -> Parent | None:
    """Make the executor's group in a tree; None where that is not allowed, or would bind nothing."""
    if tree.version == 1:
        folder = tree.place / name
        return Parent(1, folder, tree.controllers) if _made(folder) else None
    # Version 2 has limits only in groups whose parent has no processes of its own. That is so above the place
    # of this process, and in its place once this process has left it, if nobody else is there.
    for above, given_there in ((tree.place, _given_here), (tree.place.parent, _enabled)):
        given, folder = given_there(above), above / name
        if given and _made(folder):
            if given := _enable(folder, given):
                return Parent(2, folder, given)
            remove_tree(folder)
    return None


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    return True


def _given_here(place: Path) -> frozenset[Controller]:
    """The controllers that groups in this process's own place have; it leaves the place if that is needed."""
    if given := _enabled(place):
        # What another has set up is taken as it is.
        return given
    with suppress(OSError):
        # The root of all, which alone may have both, is known by having no type.
        if (place / "cgroup.type").exists():
            alone = (place / "cgroup.procs").read_text().split() == [str(os.getpid())]
            if not (alone and os.access(place / "cgroup.subtree_control", os.W_OK)):
                return frozenset()
            (place / _OWN).mkdir(exist_ok=True)
            (place / _OWN / "cgroup.procs").write_text(str(os.getpid()))
        return _enable(place, frozenset(CONTROLLERS))
    return frozenset()


def _enable(group: Path, controllers: frozenset[Controller]) -> frozenset[Controller]:
    for controller in controllers:
        # One at a time, because the kernel takes all or none.
        with suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
    return _enabled(group)


def _enabled(group: Path) -> frozenset[Controller]:
    with suppress(OSError):
        words = (group / "cgroup.subtree_control").read_text().split()
        return frozenset(name for name in CONTROLLERS if name in words)
    return frozenset()
