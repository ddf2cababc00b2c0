"""Emptying directories that hostile code has filled."""

import os
import stat
import time

# Trees that take longer are not worth waiting for: the sandbox is replaced.
TIME_LIMIT = 0.5
MAX_DEPTH = 64


def marks(path: str) -> tuple[object, ...]:
    """What code can write on a directory itself, and emptying it does not take away."""
    status = os.lstat(path)
    return status.st_mode, status.st_uid, status.st_gid, *os.listxattr(path, follow_symlinks=False)


def listing(path: str) -> list[tuple[object, ...]]:
    """Name, mode and inode of everything directly in a directory, links not followed, and its own marks."""
    found: list[tuple[object, ...]] = [("", os.lstat(path).st_ino, *marks(path))]
    with os.scandir(path) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            found.append((entry.name, status.st_mode, status.st_ino))
    return sorted(found, key=str)


def empty_directory(path: str, time_limit: float = TIME_LIMIT) -> bool:
    """Remove everything below `path`, never following a link.

    Returns:
        Whether the directory is empty now. False as well when the tree is
        deeper than `MAX_DEPTH` or takes longer than `time_limit` seconds.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return _empty(descriptor, time.monotonic() + time_limit, MAX_DEPTH)
    finally:
        os.close(descriptor)


def _empty(directory: int, deadline: float, depth: int) -> bool:
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if time.monotonic() > deadline:
            return False
        try:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif not _remove_tree(name, directory, deadline, depth):
                return False
        except OSError:
            return False
    return True


def _remove_tree(name: str, parent: int, deadline: float, depth: int) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        pass
    else:
        return True
    if depth == 0:
        return False
    # Code may have taken the permissions away to make this fail.
    os.chmod(name, stat.S_IRWXU, dir_fd=parent)
    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if not _empty(child, deadline, depth - 1):
            return False
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=parent)
    return True
