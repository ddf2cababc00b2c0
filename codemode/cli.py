"""The command `codemode`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from codemode.errors import CodemodeError

if TYPE_CHECKING:
    from codemode import Codemode, ExecutionResult
    from codemode.events import ExecutionEvent

# As of timeout(1): the command ran too long; the command could not be run.
EXIT_TIMEOUT, EXIT_UNABLE = 124, 125


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codemode-kernel", prog_name="codemode")
def main() -> None:
    """Run Python code in an isolated sandbox."""


# --- codemode run -------------------------------------------------------------------------------


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--timeout", type=click.FloatRange(min=0.001), metavar="SECONDS", help="How long the code may run."
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "docker", "bubblewrap"]),
    help="Use an executor of this command's own with this kind of sandbox, whatever is configured.",
)
@click.option(
    "-c",
    "--context",
    "variables",
    multiple=True,
    metavar="KEY=VALUE",
    help="A variable that the code reads as context['KEY']; give it again for more.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON, instead of output.")
def run(
    file: BinaryIO, timeout: float | None, backend: str | None, variables: tuple[str, ...], as_json: bool
) -> None:
    """Run FILE, or standard input if it is `-`, in a fresh sandbox.

    What the code prints and displays is shown as it happens. It runs on the
    executor that CODEMODE_EXECUTOR_URL and CODEMODE_EXECUTOR_API_KEY name, or
    else on one that is started for it and stopped after it.

    The exit code is 0 if the code succeeded, what it gave to sys.exit(), 1 if it
    failed, 124 if it ran too long, 125 if it could not be run, and 130 if it was
    interrupted.
    """
    code = _source_of(file)
    context = dict(_variable(text) for text in variables)
    on_input = None if file is sys.stdin.buffer else _read_line
    try:
        with _connect(backend) as codemode:
            if context:
                codemode.with_context(**context)
            result = codemode.run(
                code, execution_timeout=timeout, on_event=None if as_json else _show, on_input=on_input
            )
    except CodemodeError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    sys.exit(_exit_code(result))


def _source_of(file: BinaryIO) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"FILE is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="-c")
    return name, value


def _connect(backend: str | None) -> Codemode:
    from codemode import Codemode

    if backend is None and _is_configured():
        return Codemode.from_env()
    return Codemode.local(backend=backend or "auto", warm=0)


def _is_configured() -> bool:
    return bool(os.environ.get("CODEMODE_EXECUTOR_URL"))


def _show(event: ExecutionEvent) -> None:
    from codemode.events import DisplayOutput, Finished, OutputText

    if isinstance(event, OutputText):
        click.echo(event.text, nl=False, err=event.stream == "stderr")
    elif isinstance(event, DisplayOutput):
        if (text := event.output.data.get("text/plain")) is not None:
            click.echo(text)
    elif isinstance(event, Finished):
        _show_end(event.result)


def _show_end(result: ExecutionResult) -> None:
    for notice in result.notices:
        click.echo(f"codemode: {notice.message}", err=True)
    details = result.error_details
    if details is None:
        return
    if details.type == "SystemExit":
        if details.message not in ("", "None") and not _is_number(details.message):
            click.echo(details.message, err=True)
        return
    # click takes the colours off where there is no terminal.
    if traceback := "\n".join(details.traceback_lines) or details.traceback:
        click.echo(traceback, err=True)
    # What the executor says of it, such as that it ran too long, is in no traceback.
    if details.message not in details.traceback:
        click.echo(str(details), err=True)


def _exit_code(result: ExecutionResult) -> int:
    if result.success:
        return 0
    details = result.error_details
    if details is not None and details.type == "SystemExit":
        # As of a program of its own: sys.exit(), sys.exit(3), or sys.exit("what went wrong").
        if details.message in ("", "None"):
            return 0
        return int(details.message) & 0xFF if _is_number(details.message) else 1
    return EXIT_TIMEOUT if details is not None and details.limit == "timeout_seconds" else 1


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 20


def _read_line(prompt: str, password: bool) -> str:
    # On standard error, because standard output may be read by a program.
    if password:
        from getpass import getpass

        return getpass(prompt, sys.stderr)
    click.echo(prompt, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


# --- codemode doctor ----------------------------------------------------------------------------


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor(as_json: bool) -> None:
    """Find out whether code can be run from here, on the configured executor and on this machine.

    The exit code is 0 if the configured executor runs code, or if none is
    configured and this machine can; else 1.
    """
    executor = _examine_executor()
    if not as_json:
        click.echo(_in_words(executor))
        click.echo("\nThis machine:\n")
    command = [sys.executable, "-m", "codemode_executor.cli", "doctor", *(["--json"] if as_json else [])]
    output = subprocess.PIPE if as_json else None
    machine = subprocess.run(command, check=False, stdout=output, text=True)  # noqa: S603 - our own command
    if as_json:
        click.echo(json.dumps({"executor": executor, "machine": _parse(machine.stdout)}, indent=2))
    works = executor["ready"] if executor["configured"] else machine.returncode == 0
    sys.exit(0 if works else 1)


def _examine_executor() -> dict[str, Any]:
    """What is configured, and whether it works; never the key."""
    found: dict[str, Any] = {"configured": _is_configured(), "url": "", "healthy": False, "ready": False}
    found["problem"] = ""
    if not found["configured"]:
        return found
    from codemode import Codemode

    try:
        with Codemode.from_env() as codemode:
            found["url"] = codemode.client_config.executor_url
            found["healthy"] = codemode.health_check()
            # It runs code that calls back, which also tells whether the key is right.
            found["ready"] = found["healthy"] and codemode.ready_check()
            if found["healthy"] and not found["ready"]:
                codemode.run("1 + 1")
    except CodemodeError as error:
        found["problem"] = str(error)
    if not found["ready"] and not found["problem"]:
        found["problem"] = (
            "it answers, but ran no code" if found["healthy"] else "nothing answers at this address"
        )
    return found


def _in_words(executor: dict[str, Any]) -> str:
    if not executor["configured"]:
        return (
            "No executor is configured (CODEMODE_EXECUTOR_URL is not set): code runs on this machine, on an "
            "executor that is started when it is needed."
        )
    where = f"The configured executor{' at ' + executor['url'] if executor['url'] else ''}"
    if executor["ready"]:
        return f"{where} works: it ran code that called back a tool of this process."
    return f"{where} does not work: {executor['problem']}"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # The other command has said why on standard error.
        return None


def _fail(message: str) -> NoReturn:
    click.echo(f"codemode: {message}", err=True)
    sys.exit(EXIT_UNABLE)


if __name__ == "__main__":
    main(prog_name="codemode")
