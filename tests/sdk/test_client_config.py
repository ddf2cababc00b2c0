import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from codemode.config import ApiKey, ClientConfig, ConfigLoadError, GrpcTlsConfig

SECRET = "s3cr3t-key"

pytestmark = pytest.mark.usefixtures("clean_environment")


def config(**fields: Any) -> ClientConfig:
    return ClientConfig(**{"executor_url": "http://localhost:8001", "executor_api_key": SECRET, **fields})


def test_defaults_are_those_of_the_contract() -> None:
    made = config()
    assert made.executor_timeout == 35
    assert made.execution_timeout == 30
    assert made.retry_enabled is True
    assert made.retry_max_attempts == 3
    assert made.retry_backoff_base_ms == 100
    assert made.retry_backoff_max_ms == 5000
    assert made.retry_jitter is False
    assert made.include_correlation_id is True
    assert made.correlation_id_prefix == "cm"
    assert made.tls == GrpcTlsConfig(enabled=False)


def test_the_api_key_is_a_string_that_does_not_show_itself() -> None:
    made = config()
    assert made.executor_api_key == SECRET
    assert f"Bearer {made.executor_api_key}" == f"Bearer {SECRET}"
    assert isinstance(made.executor_api_key, ApiKey)
    assert made.executor_api_key.get_secret_value() == SECRET
    for shown in (repr(made), str(made), made.model_dump_json(), repr(made.model_dump()), f"{[made]}"):
        assert SECRET not in shown
        assert "**********" in shown


def test_the_api_key_may_be_given_as_a_secret() -> None:
    assert config(executor_api_key=SecretStr(SECRET)).executor_api_key == SECRET


def test_configurations_survive_pickling_and_copying() -> None:
    for clone in (pickle.loads(pickle.dumps(config())), copy.deepcopy(config())):
        assert clone == config()
        assert SECRET not in repr(clone)


@pytest.mark.parametrize("key", ["", " x", "x\n", "clé", "a\x00"])
def test_an_api_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValidationError, match="API key") as caught:
        config(executor_api_key=key)
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"executor_timeout": -1}, {"nonsense": 1}, {"executor_url": ""}])
def test_no_error_shows_the_api_key(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:  # the message is what is tested
        config(**wrong)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://executor:8001",
        "https://executor",
        "HTTP://executor",
        "http://127.0.0.1:8001",
        "localhost:8001",
        "127.0.0.1:8001",
        "[::1]:8001",
        "executor",
        "unix:/run/codemode.sock",
        "unix:///run/codemode.sock",
        "dns:///executor:8001",
        "grpcs://executor:8001",
    ],
)
def test_urls_of_executors_are_accepted(url: str) -> None:
    assert config(executor_url=f" {url}\n").executor_url == url


@pytest.mark.parametrize("url", ["", "  ", "a b", "ftp://executor", "file:/etc/passwd", "javascript:x"])
def test_urls_of_other_things_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="executor_url"):
        config(executor_url=url)


@pytest.mark.parametrize(
    "wrong",
    [
        {"executor_timeout": 0},
        {"execution_timeout": float("inf")},
        {"execution_timeout": float("nan")},
        {"max_code_length": 0},
        {"retry_max_attempts": 0},
        {"retry_backoff_base_ms": -1},
        {"correlation_id_prefix": "a b"},
        {"unknown": 1},
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().executor_timeout = 3  # type: ignore[misc] # the point of the test


def test_the_environment_configures_a_client(clean_environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "EXECUTOR_URL": "http://env:1",
        "EXECUTOR_API_KEY": SECRET,
        "EXECUTOR_TIMEOUT": "7",
        "EXECUTION_TIMEOUT": "2.5",
        "RETRY_ENABLED": "false",
        "TLS__SERVER_NAME": "executor",
        "MAX_CODE_LENGTH": "",
        "UNRELATED": "x",
    }.items():
        clean_environment.setenv(f"CODEMODE_{name}", value)
    made = ClientConfig.from_env()
    assert made.executor_url == "http://env:1"
    assert made.executor_api_key == SECRET
    assert made.executor_timeout == 7
    assert made.execution_timeout == 2.5
    assert made.retry_enabled is False
    assert made.tls.server_name == "executor"
    assert made.max_code_length == config().max_code_length


def test_all_missing_variables_are_named(clean_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="CODEMODE_EXECUTOR_URL and CODEMODE_EXECUTOR_API_KEY are not set; set"
    ):
        ClientConfig.from_env()
    clean_environment.setenv("CODEMODE_EXECUTOR_URL", "http://env:1")
    clean_environment.setenv("CODEMODE_EXECUTOR_API_KEY", "")
    with pytest.raises(
        ConfigLoadError, match="variable CODEMODE_EXECUTOR_API_KEY is not set; set it"
    ) as caught:
        ClientConfig.from_env()
    assert caught.value.keys == ("CODEMODE_EXECUTOR_API_KEY",)


def test_a_wrong_variable_is_named(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("CODEMODE_EXECUTOR_URL", "http://env:1")
    clean_environment.setenv("CODEMODE_EXECUTOR_API_KEY", SECRET)
    clean_environment.setenv("CODEMODE_EXECUTOR_TIMEOUT", "soon")
    with pytest.raises(ConfigLoadError, match="the environment: executor_timeout: "):
        ClientConfig.from_env()
    clean_environment.setenv("CODEMODE_EXECUTOR_TIMEOUT", "3")
    clean_environment.setenv("CODEMODE_TLS", "{")
    with pytest.raises(ConfigLoadError, match=r"the environment: .*tls"):
        ClientConfig.from_env()


def test_parameters_go_before_the_environment(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("CODEMODE_EXECUTOR_URL", "http://env:1")
    clean_environment.setenv("CODEMODE_EXECUTOR_API_KEY", "from-env")
    assert config().executor_url == "http://localhost:8001"
    made = ClientConfig.from_env(executor_url="http://given:1")
    assert (made.executor_url, made.executor_api_key) == ("http://given:1", "from-env")


def test_tls_files_must_exist(tmp_path: Path) -> None:
    there = tmp_path / "ca.pem"
    there.write_text("x")
    assert GrpcTlsConfig(enabled=True, ca_file=there).ca_file == there
    gone = tmp_path / "gone.pem"
    with pytest.raises(ValueError, match=r"ca_file '.*gone.pem' cannot be read: No such file"):
        GrpcTlsConfig(enabled=True, ca_file=gone)
    with pytest.raises(ValueError, match=r"key_file '.*' cannot be read: Is a directory"):
        GrpcTlsConfig(enabled=True, cert_file=there, key_file=tmp_path)
    assert GrpcTlsConfig(enabled=False, ca_file=gone).ca_file == gone


def test_mutual_tls_needs_a_certificate_and_its_key(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("x")
    with pytest.raises(ValueError, match="key_file is given without cert_file"):
        GrpcTlsConfig(enabled=True, key_file=tmp_path / "x.pem")
    with pytest.raises(ValueError, match="cert_file is given without key_file"):
        GrpcTlsConfig(enabled=True, cert_file=tmp_path / "x.pem")


def test_every_field_is_documented() -> None:
    for model in (ClientConfig, GrpcTlsConfig):
        for name, info in model.model_fields.items():
            assert info.description, name
    json.dumps(ClientConfig.model_json_schema())
