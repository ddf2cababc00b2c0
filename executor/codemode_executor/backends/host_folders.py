"""What a bubblewrap sandbox sees of this machine, read-only: interpreter, packages, system folders."""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import codemode_sandbox

from codemode_executor.backends.base import RUNNER_FOLDER

PYTHON_FOLDER = "/opt/python"
SITE_FOLDER = "/opt/site"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter as sandboxes see it, and the folders that must be bound for that."""

    program: str
    library_path: str
    site: tuple[str, ...]
    binds: tuple[tuple[Path, str], ...]


def interpreter() -> Interpreter:
    """The one that this process runs on."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    binds: list[tuple[Path, str]] = [
        (Path(codemode_sandbox.__file__).parent, f"{RUNNER_FOLDER}/codemode_sandbox")
    ]
    if base == Path("/usr"):
        program, library_path = f"/usr/bin/{version}", ""
    else:
        binds.append((base, PYTHON_FOLDER))
        program = f"{PYTHON_FOLDER}/bin/{version}"
        library_path = f"{PYTHON_FOLDER}/lib" if sysconfig.get_config_var("Py_ENABLE_SHARED") else ""
    site: list[str] = []
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry)
        if folder.name not in {"site-packages", "dist-packages"} or not folder.is_dir():
            continue
        if folder.is_relative_to("/usr"):
            site.append(str(folder))
        elif folder.is_relative_to(base):
            site.append(f"{PYTHON_FOLDER}/{folder.relative_to(base)}")
        else:
            inside = f"{SITE_FOLDER}/{len(site)}"
            binds.append((folder, inside))
            site.append(inside)
    return Interpreter(program, library_path, tuple(site), tuple(binds))


def system_folders() -> list[str]:
    """Arguments of bubblewrap that bind them."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    # For the linker, Debian's choice of BLAS, and fontconfig; NixOS keeps every library in its store.
    for extra in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/nix/store"):
        if Path(extra).exists():
            arguments += ["--ro-bind", extra, extra]
    return arguments
