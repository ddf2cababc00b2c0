"""What a build is told about how this machine reaches package indexes."""

from pathlib import Path

from codemode_executor.build_environment import build_arguments, host_certificates

ONE = "-----BEGIN CERTIFICATE-----\nT25l\n-----END CERTIFICATE-----"
TWO = "-----BEGIN CERTIFICATE-----\nVHdv\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"


def test_proxies_and_pip_settings_are_handed_over() -> None:
    settings = {
        "HTTPS_PROXY": "http://proxy:3128",
        "PIP_INDEX_URL": "https://index/simple",
        "HOME": "/home/me",
    }
    assert build_arguments(settings) == {key: settings[key] for key in ("HTTPS_PROXY", "PIP_INDEX_URL")}


def test_indexes_in_folders_of_this_machine_are_left_out() -> None:
    mixed = {"PIP_EXTRA_INDEX_URL": "file:///srv/simple https://index/simple", "PIP_INDEX_URL": "file:///srv"}
    assert build_arguments(mixed) == {"PIP_EXTRA_INDEX_URL": "https://index/simple"}


def test_empty_settings_are_not_handed_over() -> None:
    assert build_arguments({"HTTP_PROXY": "", "PIP_INDEX_URL": "", "PIP_TRUSTED_HOST": ""}) == {}


def test_certificates_come_from_the_bundle_and_the_local_folder_once_each(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# comment\n{ONE}\n{TWO}\n")
    (tmp_path / "company.crt").write_text(TWO)
    found = host_certificates({"SSL_CERT_FILE": str(bundle)}, tmp_path)
    assert found.decode() == f"{ONE}\n{TWO}\n"


def test_a_private_key_beside_a_certificate_stays_here(tmp_path: Path) -> None:
    (tmp_path / "both.crt").write_text(f"{KEY}\n{ONE}\n{KEY}\n")
    assert host_certificates({}, tmp_path).decode() == f"{ONE}\n"


def test_a_bundle_that_is_gone_does_not_stop_a_build(tmp_path: Path) -> None:
    assert host_certificates({"PIP_CERT": str(tmp_path / "gone.pem")}, tmp_path) == b""
