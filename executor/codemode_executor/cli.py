"""The command `codemode-executor`."""

import asyncio
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import ValidationError

from codemode_executor.config import ExecutorConfig
from codemode_executor.errors import BackendError

F = TypeVar("F", bound=Callable[..., Any])

# In what order `serve --help` shows the settings; those that no section names come last.
_SECTIONS = {
    "Address and access": (
        "listen api_keys_file tls_certificate tls_key tls_client_ca allow_insecure isolation_keys reflection"
    ),
    "Sandboxes": (
        "backend image docker_runtime control_groups preload warm max_sandboxes sandbox_idle_seconds "
        "sandbox_uses session_idle_seconds"
    ),
    "Limits of code that asks for no others": (
        "timeout_seconds memory_bytes cpus processes open_files tmp_bytes tmp_inodes output_bytes "
        "result_bytes tool_calls tool_calls_per_second"
    ),
    "The highest limits that code may ask for": (
        "max_timeout_seconds max_memory_bytes max_cpus max_processes max_open_files max_tmp_bytes "
        "max_tmp_inodes max_output_bytes max_result_bytes max_tool_calls max_tool_calls_per_second"
    ),
    "Logs and metrics": "log_level metrics",
}


class _SectionedCommand(click.Command):
    """A command whose help shows its options by subject."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        }
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names.split()])
        with formatter.section("Queue, journal and sizes"):
            formatter.write_dl(list(records.values()))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codemode-kernel")
def main() -> None:
    """Run code in isolated sandboxes for callers that have an API key."""


def _options(command: F) -> F:
    """One option for every setting, with the setting's own words as its help.

    None has a default here: what is not given comes from the environment, and
    then from the configuration's own defaults.
    """
    for name, field in reversed(ExecutorConfig.model_fields.items()):
        flag = "--" + name.replace("_", "-")
        default = field.get_default(call_default_factory=True)
        shown = ",".join(default) if isinstance(default, tuple) else default
        help_text = field.description or ""
        if shown not in (None, "", False):
            help_text += f" [default: {shown}]"
        if field.annotation is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        command = click.option(flag, name, default=None, type=_type(field.annotation), help=help_text)(
            command
        )
    return command


def _type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) is types.UnionType:
        return click.Path(exists=True, dir_okay=False, path_type=Path)
    return annotation if annotation in (bool, int, float) else str


def _config(given: dict[str, Any]) -> ExecutorConfig:
    try:
        return ExecutorConfig(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = [_problem(item["loc"], item["msg"], given) for item in error.errors()]
        raise click.UsageError("\n".join(problems)) from None


def _problem(location: tuple[int | str, ...], message: str, given: dict[str, Any]) -> str:
    message = message.removeprefix("Value error, ")
    name = str(location[0]) if location else ""
    if not name:
        # A rule about several settings begins with the name of the one to change.
        name, _, message = message.partition(": ")
    option = "--" + name.replace("_", "-")
    if given.get(name) is None and (variable := f"CODEMODE_EXECUTOR_{name.upper()}") in os.environ:
        option += f" (from {variable})"
    return f"{option}: {message}"


@main.command(cls=_SectionedCommand)
@_options
@click.option(
    "--api-keys-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lines `identity: key`. Else CODEMODE_EXECUTOR_API_KEY is the key of the identity `default`.",
)
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(["debug", "info", "warning", "error"]),
    show_default=True,
    help="Least severe log lines written. They never hold code, keys or context values.",
)
@click.option("--parent-fd", type=int, hidden=True)
def serve(api_keys_file: Path | None, log_level: str, parent_fd: int | None, **given: Any) -> None:
    """Serve until SIGTERM.

    Every setting can also be given in the environment, as CODEMODE_EXECUTOR_ and
    its name, such as CODEMODE_EXECUTOR_MAX_SANDBOXES. When the executor is ready
    it prints one line, "ready ADDRESS"; its logs are JSON lines on standard error.
    """
    from codemode_executor import logs

    # First of all, because what is imported below may have something to say.
    logs.configure(log_level)
    from codemode_executor.auth import Authenticator, KeyListError, read_keys
    from codemode_executor.metrics import MetricsError
    from codemode_executor.server import ListenError
    from codemode_executor.server import serve as serve_until_stopped

    config = _config(given)
    try:
        # Out of the environment at once, so that nothing this process starts can inherit it.
        key = os.environ.pop("CODEMODE_EXECUTOR_API_KEY", "")
        keys = read_keys(api_keys_file) if api_keys_file else ({"default": key} if key else {})
        asyncio.run(serve_until_stopped(config, Authenticator(keys), parent_fd))
    except (BackendError, ListenError, KeyListError, MetricsError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        # Where an event loop takes no signal handlers, Ctrl-C arrives like this, with everything closed.
        sys.exit(130)


@main.group()
def image() -> None:
    """The Docker image that sandboxes are started from."""


@image.command()
@click.option(
    "--requirements",
    type=click.File("rb"),
    help="A requirements.txt of packages to add; `-` reads standard input.",
)
@click.option(
    "--base-image",
    metavar="NAME",
    help=(
        "Debian or Ubuntu with Python 3.11 or newer. "
        "[default: python:3.12-slim, or what `make base-image` made]"
    ),
)
def build(requirements: Any, base_image: str | None) -> None:
    """Build the sandbox image, unless it is there already.

    Its name comes from all it is made of. Of several images of this version an
    executor takes the one built last. The build reaches package indexes as this
    machine does: HTTPS_PROXY, PIP_INDEX_URL, PIP_CERT and certificates added to
    the system hold there too.
    """
    from codemode_executor.backends.engine import connect_docker
    from codemode_executor.image import ImageBuildError, build_image

    def progress(line: str) -> None:
        if line.startswith("Step ") or line.endswith(" is up to date"):
            click.echo(line[:110])

    try:
        name = build_image(
            connect_docker(),
            base_image=base_image,
            requirements=requirements.read() if requirements else b"",
            progress=progress,
        )
    except (BackendError, ImageBuildError) as error:
        _fail(str(error))
    click.echo(f"Sandbox image: {name}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor(as_json: bool) -> None:
    """Find out what this machine can do, by starting a sandbox of each kind.

    Takes the settings of the environment (CODEMODE_EXECUTOR_IMAGE and so on) as
    `serve` does. The exit code is 0 if some kind of sandbox works, else 1.
    """
    import json

    from codemode_executor.doctor import examine
    from codemode_executor.doctor_words import in_words

    report = asyncio.run(examine(_config({})))
    click.echo(json.dumps(report, indent=2) if as_json else in_words(report))
    sys.exit(0 if report["works"] else 1)


def _fail(message: str) -> None:
    click.echo(f"codemode-executor: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main(prog_name="codemode-executor")
