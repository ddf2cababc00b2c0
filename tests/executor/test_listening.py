"""Where an executor listens, and how the line to it is protected."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from codemode_executor.config import ExecutorConfig
from codemode_executor.server import ListenError, check_address

from codemode import ClientConfig, Codemode
from codemode.config import GrpcTlsConfig
from codemode.errors import ExecutorConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "a-key-of-these-tests-alone"


class Served:
    """An executor started by its command, at an address of its own."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "codemode_executor.cli",
                "serve",
                "--backend=bubblewrap",
                "--warm=1",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "CODEMODE_EXECUTOR_API_KEY": KEY},
        )
        assert self._process.stdout is not None
        word, _, self.address = self._process.stdout.readline().strip().partition(" ")
        assert word == "ready"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*options: str) -> Served:
        started.append(Served(*options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def refused(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "codemode_executor.cli", "serve", "--backend=bubblewrap", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "CODEMODE_EXECUTOR_API_KEY": KEY},
    )
    assert done.returncode == 2
    return done.stderr


def client(url: str, **settings: Any) -> Codemode:
    return Codemode(
        client_config=ClientConfig(
            executor_url=url, executor_api_key=KEY, retry_enabled=False, executor_timeout=5, **settings
        )
    )


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:8001", "127.8.9.10:1", "localhost:8001", "[::1]:8001", "unix:/run/codemode.sock"]
)
def test_plain_text_is_served_where_only_this_machine_hears_it(listen: str) -> None:
    check_address(ExecutorConfig(listen=listen))


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:8001",
        "[::]:8001",
        "10.0.0.1:8001",
        "example.org:8001",
        "127.0.0.1.example.org:8001",
        "localhost.example.org:80",
    ],
)
def test_plain_text_elsewhere_is_refused_unless_it_is_asked_for_by_name(listen: str) -> None:
    with pytest.raises(ListenError, match="--allow-insecure"):
        check_address(ExecutorConfig(listen=listen))
    check_address(ExecutorConfig(listen=listen, allow_insecure=True))


@pytest.mark.parametrize("listen", ["8001", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:-1", ""])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ListenError):
        check_address(ExecutorConfig(listen=listen))


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ListenError, match="go together"):
        check_address(ExecutorConfig(listen="127.0.0.1:1", tls_certificate=Path("cert.pem")))


def test_the_command_refuses_plain_text_on_all_addresses() -> None:
    assert "--allow-insecure" in refused("--listen=0.0.0.0:0")


def test_an_executor_that_was_asked_to_serves_plain_text_on_all_addresses(serve: Any) -> None:
    served = serve("--listen=0.0.0.0:0", "--allow-insecure")
    port = served.address.rpartition(":")[2]
    with client(f"http://127.0.0.1:{port}") as codemode:
        assert codemode.execute("1 + 1") == "2"


def test_a_port_that_is_taken_is_refused(serve: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen on" in refused(f"--listen=127.0.0.1:{taken.getsockname()[1]}")
    served = serve("--listen=127.0.0.1:0")
    assert "cannot listen on" in refused(f"--listen={served.address}")


def test_only_its_owner_may_use_the_socket(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "executor.sock"
    served = serve(f"--listen=unix:{path}")
    assert served.address == f"unix:{path}"
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    with client(f"unix:{path}") as codemode:
        assert codemode.execute("1 + 1") == "2"


def test_a_file_in_the_place_of_the_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "executor.sock"
    path.write_text("precious")
    assert "is not a socket" in refused(f"--listen=unix:{path}")
    assert path.read_text() == "precious"


def test_a_socket_that_another_executor_listens_on_is_not_taken_over(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "executor.sock"
    serve(f"--listen=unix:{path}")
    assert "cannot listen on" in refused(f"--listen=unix:{path}")
    with client(f"unix:{path}") as codemode:
        assert codemode.execute("1 + 1") == "2"


def test_a_socket_that_a_dead_executor_left_is_replaced(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "executor.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    serve(f"--listen=unix:{path}")
    with client(f"unix:{path}") as codemode:
        assert codemode.execute("1 + 1") == "2"


# --- TLS ----------------------------------------------------------------------------------------------


class Certificates:
    """An authority, and certificates that it signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        authority, stranger = trustme.CA(), trustme.CA()
        server, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("client")
        self.authority = self._written("authority", authority.cert_pem, authority.private_key_pem)
        self.server = self._written("server", server.cert_chain_pems[0], server.private_key_pem)
        self.client = self._written("client", client.cert_chain_pems[0], client.private_key_pem)
        self.stranger = self._written("stranger", stranger.cert_pem, stranger.private_key_pem)

    def key_of(self, certificate: Path) -> Path:
        return certificate.with_suffix(".key")

    def _written(self, name: str, certificate: trustme.Blob, key: trustme.Blob) -> Path:
        path = self._folder / f"{name}.pem"
        certificate.write_to_path(path)
        key.write_to_path(path.with_suffix(".key"))
        return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def tls_options(certificates: Certificates) -> list[str]:
    return [
        "--listen=127.0.0.1:0",
        f"--tls-certificate={certificates.server}",
        f"--tls-key={certificates.key_of(certificates.server)}",
    ]


def test_tls_with_an_authority_of_ones_own(serve: Any, certificates: Certificates) -> None:
    url = "https://" + serve(*tls_options(certificates)).address
    with client(url, tls=GrpcTlsConfig(enabled=True, ca_file=certificates.authority)) as codemode:
        assert codemode.execute("1 + 1") == "2"
        assert codemode.health_check()
    # A server whose certificate somebody else signed is not talked to.
    other = GrpcTlsConfig(enabled=True, ca_file=certificates.stranger)
    with client(url, tls=other) as codemode, pytest.raises(ExecutorConnectionError):
        codemode.execute("1")
    # Nor without TLS.
    with client(url.replace("https", "http")) as codemode, pytest.raises(ExecutorConnectionError):
        codemode.execute("1")


def test_the_name_in_the_certificate_is_checked(serve: Any, certificates: Certificates) -> None:
    url = "https://" + serve(*tls_options(certificates)).address
    for name, fits in (("localhost", True), ("somebody-else", False)):
        tls = GrpcTlsConfig(enabled=True, ca_file=certificates.authority, server_name=name)
        with client(url, tls=tls) as codemode:
            assert codemode.health_check() is fits


def test_mutual_tls_wants_a_certificate_of_the_authority(serve: Any, certificates: Certificates) -> None:
    served = serve(*tls_options(certificates), f"--tls-client-ca={certificates.authority}")
    url = f"https://{served.address}"

    def settings(certificate: Path | None) -> GrpcTlsConfig:
        return GrpcTlsConfig(
            enabled=True,
            ca_file=certificates.authority,
            cert_file=certificate,
            key_file=certificates.key_of(certificate) if certificate else None,
        )

    with client(url, tls=settings(certificates.client)) as codemode:
        assert codemode.execute("1 + 1") == "2"
    for certificate in (None, certificates.stranger):
        with client(url, tls=settings(certificate)) as codemode, pytest.raises(ExecutorConnectionError):
            codemode.execute("1")


def test_a_key_that_is_not_the_certificates_is_refused(certificates: Certificates) -> None:
    said = refused(
        "--listen=127.0.0.1:0",
        f"--tls-certificate={certificates.server}",
        f"--tls-key={certificates.key_of(certificates.client)}",
    )
    assert "cannot listen on" in said
