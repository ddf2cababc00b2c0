"""How this machine reaches package indexes, so that an image build can do the same.

A build runs in a container, which knows nothing of the machine's proxy, its company CA or its package mirror.
All of them come from the variables that pip and OpenSSL read anyway; nothing has to be set twice.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_BUNDLE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

# The engine knows the proxy variables and keeps them out of the image's history by itself.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
_PLAIN = ("PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT")


def build_arguments(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Collect proxies and pip settings as arguments of a build.

    Indexes that are folders of this machine are left out: a build container cannot see them.
    """
    found = {name: environment[name] for name in _PROXIES + _PLAIN if environment.get(name)}
    for name in _INDEXES:
        remote = [url for url in environment.get(name, "").split() if not url.startswith("file:")]
        if remote:
            found[name] = " ".join(remote)
    return found


def host_certificates(
    environment: Mapping[str, str] = os.environ, folder: Path = _LOCAL_CERTIFICATES
) -> bytes:
    """Collect the CA certificates that someone added to this machine, as PEM; empty on most machines.

    They are the bundle that an environment variable names (the first that exists) and what lies in the
    folder for local certificates. Only certificate blocks are taken: a private key in the same file stays
    where it is.
    """
    sources = [Path(environment[name]) for name in _BUNDLE_VARIABLES if environment.get(name)]
    bundle = next((path for path in sources if path.is_file()), None)
    files = ([bundle] if bundle else []) + sorted(folder.glob("*.crt"))
    blocks = dict.fromkeys(block for path in files for block in _PEM.findall(path.read_bytes()))
    return b"".join(block + b"\n" for block in blocks)
