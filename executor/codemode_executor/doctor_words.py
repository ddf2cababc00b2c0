"""What the doctor found, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from codemode_executor.doctor import BackendReport, Report

_INDENT = 22


def in_words(report: Report) -> str:
    """The report as text for a terminal."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    facts = report["machine"]
    yield f"Codemode {report['version']}, Python {facts['python']}"
    yield f"{facts['system']} {facts['architecture']}{_aside(report)}"
    yield ""
    if report["backend"] is None:
        yield "No sandbox is possible here, and code is never run without one."
    else:
        yield f"`--backend auto` takes {report['backend']}."
        if not report["backends"][report["backend"]]["works"] and report["works"]:
            yield "It does not work; the other does. Choose it with --backend until this one is repaired."
    advice: list[str] = []
    for name, backend in report["backends"].items():
        yield ""
        yield from _backend(name, backend)
        advice += backend["advice"]
    if advice:
        yield ""
        yield "What can be done:"
        yield from (f"  - {item}" for item in dict.fromkeys(advice))


def _aside(report: Report) -> str:
    facts = report["machine"]
    asides = []
    if facts["cgroup_version"] is not None:
        asides.append(f"control groups version {facts['cgroup_version']}")
    if facts["root"]:
        asides.append("as root")
    if facts["container"]:
        asides.append(f"in a container ({facts['container']})")
    if facts["max_user_namespaces"] == 0 or facts["unprivileged_user_namespaces"] is False:
        asides.append("user namespaces forbidden")
    if facts["apparmor_restricts_user_namespaces"]:
        asides.append("user namespaces restricted by AppArmor")
    return "".join(f", {aside}" for aside in asides)


def _backend(name: str, report: BackendReport) -> Iterator[str]:
    yield f"{name}: works" if report["works"] else f"{name}: does not work: {report['reason']}"
    yield from _details(report["details"])
    trial = report["trial"]
    if trial is not None:
        yield _row("1+1", f"2, {trial['start_ms']:g} ms to start and {trial['execution_ms']:g} ms to run")
        yield _row("python inside", trial["python"])
        yield _row("seccomp", trial["seccomp"])
        yield _row("no new privileges", "yes" if trial["no_new_privileges"] else "NO")
        yield _row("capabilities", trial["capabilities"])
    for limit, entry in report["limits"].items():
        yield _row(limit, f"{entry['value']:,}: {entry['enforced']}")


def _details(details: Mapping[str, Any]) -> Iterator[str]:
    for name, value in details.items():
        yield _row(name.replace("_", " "), _shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return "unknown" if value in ("", None) else str(value)


def _row(name: str, value: str) -> str:
    return f"  {name:<{_INDENT}}{value}"
