import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from codemode.config import (
    ClientConfig,
    CodemodeConfig,
    ConfigFileNotFoundError,
    ConfigLoadError,
    load_client_config,
    load_config,
)

SECRET = "s3cr3t-key"
CLIENT = f"executor_url: http://yaml:1\nexecutor_api_key: {SECRET}\n"
LEGACY = f"project:\n  name: demo\nexecutor:\n  url: http://yaml:1\n  api_key: {SECRET}\n"

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_(text: str) -> Path:
        path = tmp_path / "codemode.yaml"
        path.write_text(text)
        return path

    return write_


def test_a_file_configures_a_client(write: Any) -> None:
    made = load_client_config(write(CLIENT + "executor_timeout: 7\ntls:\n  server_name: executor\n"))
    assert (made.executor_url, made.executor_api_key) == ("http://yaml:1", SECRET)
    assert made.executor_timeout == 7
    assert made.tls.server_name == "executor"
    assert ClientConfig.from_yaml(str(write(CLIENT))).executor_url == "http://yaml:1"


def test_parameters_go_before_the_file_and_the_file_before_the_environment(
    write: Any, clean_environment: pytest.MonkeyPatch
) -> None:
    clean_environment.setenv("CODEMODE_EXECUTOR_URL", "http://env:1")
    clean_environment.setenv("CODEMODE_EXECUTOR_TIMEOUT", "11")
    clean_environment.setenv("CODEMODE_RETRY_MAX_ATTEMPTS", "12")
    made = load_client_config(
        write(CLIENT + "executor_timeout: 21\nexecution_timeout: 22\n"), execution_timeout=31
    )
    assert made.executor_url == "http://yaml:1"
    assert made.retry_max_attempts == 12
    assert made.executor_timeout == 21
    assert made.execution_timeout == 31


def test_a_legacy_file_is_read_and_converted(write: Any, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("CODEMODE_EXECUTION_TIMEOUT", "99")
    clean_environment.setenv("CODEMODE_TLS__SERVER_NAME", "env")
    config = load_config(write(LEGACY + "  timeout: 40\n  retry_max_attempts: 5\n  tls: {server_name: x}\n"))
    assert config.project.name == "demo"
    assert SECRET not in repr(config)
    client = config.to_client_config()
    assert (client.executor_url, client.executor_api_key) == ("http://yaml:1", SECRET)
    assert (client.executor_timeout, client.execution_timeout) == (40, 30)
    assert client.retry_max_attempts == 5
    assert client.tls.server_name == "x"


def test_a_legacy_configuration_converts_every_field() -> None:
    executor = {
        "url": "http://x:1",
        "api_key": SECRET,
        "timeout": 1,
        "execution_timeout": 2,
        "max_code_length": 3,
        "retry_enabled": False,
        "retry_max_attempts": 4,
        "retry_backoff_base_ms": 5,
        "retry_backoff_max_ms": 6,
        "retry_jitter": True,
        "tls": {"server_name": "y"},
        "include_correlation_id": False,
        "correlation_id_prefix": "z",
    }
    config = CodemodeConfig.model_validate({"project": {"name": "demo"}, "executor": executor})
    assert config.executor.model_fields_set == set(type(config.executor).model_fields)
    converted = config.to_client_config()
    assert converted.model_fields_set == set(ClientConfig.model_fields)
    for name, value in executor.items():
        field = f"executor_{name}" if name in {"url", "api_key", "timeout"} else name
        if name != "tls":
            assert getattr(converted, field) == value


def test_variables_are_put_in(write: Any, clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("MY_HOST", "executor")
    clean_environment.setenv("MY_KEY", "a: b # ${MY_HOST}")
    clean_environment.setenv("EMPTY", "")
    made = load_client_config(
        write(
            "executor_url: http://${MY_HOST}:${MY_PORT:-8001}\n"
            "executor_api_key: ${MY_KEY}\n"
            "executor_timeout: ${TIMEOUT:-12}\n"
            "correlation_id_prefix: ${EMPTY:-x}\n"
            "tls: {enabled: '${TLS:-false}', server_name: '$${literal}'}\n"
        )
    )
    assert made.executor_url == "http://executor:8001"
    # A value is a value: no YAML in it, and no variable.
    assert made.executor_api_key == "a: b # ${MY_HOST}"
    assert made.executor_timeout == 12
    assert made.correlation_id_prefix == "x"
    assert made.tls.enabled is False
    assert made.tls.server_name == "${literal}"


def test_a_missing_variable_is_named_with_file_and_key(write: Any) -> None:
    path = write(CLIENT + "tls:\n  server_name: x-${NOT_SET_ANYWHERE}\n")
    with pytest.raises(ConfigLoadError) as caught:
        load_client_config(path)
    assert str(caught.value).startswith(
        f"{path}: tls.server_name: the environment variable NOT_SET_ANYWHERE is not set; set it"
    )
    assert (caught.value.path, caught.value.keys) == (str(path), ("tls.server_name",))


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A", "${A-b}", "${A:?message}"])
def test_what_only_looks_like_a_variable_is_refused(write: Any, text: str) -> None:
    with pytest.raises(ConfigLoadError, match=r"executor_url: '\${' begins no variable"):
        load_client_config(write(f"executor_url: '{text}'\n"))


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    for load in (load_config, load_client_config, ClientConfig.from_yaml):
        with pytest.raises(
            FileNotFoundError, match=r"there is no configuration file '.*nowhere.yaml'"
        ) as caught:
            load(tmp_path / "nowhere.yaml")
        assert isinstance(caught.value, ConfigFileNotFoundError)


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigLoadError, match="Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1\n", "not valid YAML: line 2"),
        ("executor_url: 1\nexecutor_url: 2\n", "line 2, column 1: the key 'executor_url' stands twice"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: 2024-13-99\n", "not valid YAML"),
        ("a: \x01\n", "not valid YAML"),
        ("- a\n", "holds a list"),
        ("just text\n", "holds a str"),
        ("", "'executor_url' is missing; 'executor_api_key' is missing"),
        (
            CLIENT + "executor_timeuot: 3\n",
            r"unknown key 'executor_timeuot' \(did you mean 'executor_timeout'\?\)",
        ),
        (CLIENT + "tls: {ca_flie: x}\n", r"unknown key 'tls.ca_flie' \(did you mean 'ca_file'\?\)"),
        (CLIENT + "zzz: 3\n", r"unknown key 'zzz' \(known keys: .*executor_url"),
        (CLIENT + "executor_timeout: soon\n", "executor_timeout: "),
        (CLIENT + "executor_timeout: 0\n", "executor_timeout: Input should be greater than 0"),
        (
            CLIENT + "tls: {enabled: true, ca_file: /nowhere/ca.pem}\n",
            "tls: ca_file '/nowhere/ca.pem' cannot be",
        ),
        (CLIENT + "tls: 3\n", "tls: "),
        (CLIENT + "1: 2\n", "unknown key '1'"),
    ],
)
def test_a_wrong_file_says_what_and_where_and_not_the_key(write: Any, text: str, complaint: str) -> None:
    path = write(text)
    with pytest.raises(ConfigLoadError, match=complaint) as caught:
        load_client_config(path)
    assert str(caught.value).startswith(str(path))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("project: {}\nexecutor: {}\n", "'project.name' is missing; 'executor.url' is missing"),
        (LEGACY + "executer: {}\n", r"unknown key 'executer' \(did you mean 'executor'\?\)"),
        (LEGACY + "  urll: x\n", r"unknown key 'executor.urll' \(did you mean 'url'\?\)"),
        ("project: demo\n", "project: "),
    ],
)
def test_a_wrong_legacy_file_says_what_and_where(write: Any, text: str, complaint: str) -> None:
    with pytest.raises(ConfigLoadError, match=complaint):
        load_config(write(text))


def test_a_broken_line_is_not_quoted(write: Any) -> None:
    with pytest.raises(ConfigLoadError) as caught:
        load_client_config(write(f'executor_api_key: "{SECRET}\n'))
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigLoadError, match="cannot read"):
        load_config(path)


def test_merged_keys_may_repeat(write: Any) -> None:
    text = "tls: &tls {server_name: a}\n" + CLIENT
    assert load_client_config(write(text)).tls.server_name == "a"
    merged = write(LEGACY.replace("  url", "  <<: {timeout: 3, execution_timeout: 4}\n  timeout: 5\n  url"))
    assert load_config(merged).executor.timeout == 5


@given(text=st.text() | st.text(alphabet="${}:-AB$x ").map(lambda value: f"executor_url: {value!r}\n"))
def test_any_file_is_read_or_refused_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_client_config(path)
    except ConfigLoadError as error:
        assert str(error).startswith((str(path), f"cannot read the configuration file {path}"))


@given(value=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).filter(str.strip))
def test_a_variables_value_arrives_unchanged(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "variable.yaml"
    path.write_text(
        yaml.safe_dump({"project": {"name": "${A_NAME}"}, "executor": {"url": "x", "api_key": "y"}})
    )
    os.environ["A_NAME"] = value
    try:
        assert load_config(path).project.name == value
    finally:
        del os.environ["A_NAME"]
