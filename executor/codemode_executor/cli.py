"""The command `codemode-executor`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from codemode_executor.config import ExecutorConfig


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="codemode-kernel")
def main() -> None:
    """Run code in isolated sandboxes for callers that have an API key."""


def _options(command: Any) -> Any:
    """One option for every setting, with the setting's own words as its help."""
    for name, field in reversed(ExecutorConfig.model_fields.items()):
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            option = click.option(flag, name, is_flag=True, default=None, help=field.description)
        else:
            default = field.get_default(call_default_factory=True)
            shown = ",".join(default) if isinstance(default, tuple) else default
            text = field.description or name.replace("_", " ").capitalize() + "."
            help_text = text if shown in (None, "") else f"{text} [default: {shown}]"
            option = click.option(flag, name, default=None, help=help_text, metavar="VALUE")
        command = option(command)
    return command


def _config(given: dict[str, Any]) -> ExecutorConfig:
    from pydantic import ValidationError

    try:
        return ExecutorConfig(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None


@main.command()
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
    help="Least severe log lines written.",
)
@click.option("--parent-fd", type=int, hidden=True)
def serve(api_keys_file: Path | None, log_level: str, parent_fd: int | None, **given: Any) -> None:
    """Serve until SIGTERM."""
    from codemode_executor import logs
    from codemode_executor.auth import Authenticator, KeyListError, read_keys
    from codemode_executor.errors import BackendError
    from codemode_executor.server import ListenError
    from codemode_executor.server import serve as serve_until_stopped

    logs.configure(log_level)
    config = _config(given)
    try:
        # Out of the environment at once, so that nothing this process starts can inherit it.
        key = os.environ.pop("CODEMODE_EXECUTOR_API_KEY", "")
        keys = read_keys(api_keys_file) if api_keys_file else ({"default": key} if key else {})
        asyncio.run(serve_until_stopped(config, Authenticator(keys), parent_fd))
    except (BackendError, ListenError, KeyListError) as error:
        click.echo(f"codemode-executor: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
