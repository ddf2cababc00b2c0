"""What this machine is, as far as sandboxes care."""

import os
import platform
from pathlib import Path
from typing import TypedDict

_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_USER_NAMESPACES_DEBIAN = Path("/proc/sys/kernel/unprivileged_userns_clone")
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


class Machine(TypedDict):
    """Facts; None for what cannot be told, or means nothing on this system.

    Attributes:
        system: Kernel and its release.
        architecture: Such as `x86_64`.
        python: Version of the interpreter.
        root: Whether this process has all rights.
        container: What kind of container this process is in; empty for none that can be seen.
        cgroup_version: 1 or 2.
        max_user_namespaces: How many there may be; 0 forbids them.
        unprivileged_user_namespaces: Whether users other than root may make them, where Debian's switch is.
        apparmor_restricts_user_namespaces: Whether AppArmor forbids them to programs that it does not know.
    """

    system: str
    architecture: str
    python: str
    root: bool
    container: str
    cgroup_version: int | None
    max_user_namespaces: int | None
    unprivileged_user_namespaces: bool | None
    apparmor_restricts_user_namespaces: bool | None


def describe() -> Machine:
    """The facts of this machine."""
    clone, apparmor = _number(_USER_NAMESPACES_DEBIAN), _number(_APPARMOR)
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        python=platform.python_version(),
        root=hasattr(os, "geteuid") and os.geteuid() == 0,
        container=_container(),
        cgroup_version=_cgroup_version(),
        max_user_namespaces=_number(_USER_NAMESPACES),
        unprivileged_user_namespaces=None if clone is None else bool(clone),
        apparmor_restricts_user_namespaces=None if apparmor is None else bool(apparmor),
    )


def advice(machine: Machine) -> list[str]:
    """What stands in the way of user namespaces, and what to do about it."""
    found = []
    if machine["max_user_namespaces"] == 0:
        found.append(f"allow user namespaces: sysctl user.{_USER_NAMESPACES.name}=10000")
    if machine["unprivileged_user_namespaces"] is False and not machine["root"]:
        found.append(f"allow user namespaces to users: sysctl kernel.{_USER_NAMESPACES_DEBIAN.name}=1")
    if machine["apparmor_restricts_user_namespaces"]:
        found.append(
            "let AppArmor know bubblewrap: install the system's package `bubblewrap` and its profile "
            "`bwrap-userns-restrict`, as the package `apparmor-profiles` has it"
        )
    if machine["container"]:
        found.append(
            f"this is inside a container ({machine['container']}), which often forbids namespaces: run the "
            "executor on the host, or let it reach a Docker Engine"
        )
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _container() -> str:
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(mark).exists():
            return kind
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    # Set by systemd-nspawn, LXC and others for their first process; this one may have inherited it.
    return os.environ.get("container", "")  # noqa: SIM112 - their name for it


def _cgroup_version() -> int | None:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return 2
    return 1 if Path("/sys/fs/cgroup/memory").is_dir() else None
