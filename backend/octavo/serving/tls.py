"""``TlsFiles``: the certificate that a port shows and the clients that it lets in, for gRPC and for HTTP alike."""

import ssl
from pathlib import Path

import msgspec

from octavo.serving.options import BadFlag


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files by path. With ``root`` every client must show a certificate that one of its authorities has signed."""

    certificate: str
    key: str
    root: str | None = None


def tls_files(
    transport: str, use: bool, mutual: bool, certificate: Path | None, key: Path | None, root: Path | None
) -> TlsFiles | None:
    """What the flags of ``transport`` ("grpc", "http") say, checked; None for a port without TLS. Raises ``BadFlag``.

    As with tritonserver, ``mutual`` implies ``use``, and ``root`` counts only with ``mutual``.
    """
    if not use and not mutual:
        return None
    if certificate is None or key is None:
        raise BadFlag(f"--{transport}-use-ssl needs --{transport}-server-cert and --{transport}-server-key.")
    if mutual and root is None:
        raise BadFlag(f"--{transport}-use-ssl-mutual needs --{transport}-root-cert.")
    files = TlsFiles(str(certificate), str(key), str(root) if mutual else None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, _no_passphrase)
    except (OSError, ValueError):
        text = "must be readable PEM files that belong together, the key without a passphrase"
        raise BadFlag(f"--{transport}-server-cert and --{transport}-server-key {text}.") from None
    try:
        if files.root is not None:
            context.load_verify_locations(files.root)
    except OSError:
        raise BadFlag(f"--{transport}-root-cert must be a readable PEM file of certificates.") from None
    return files


def server_context(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    """What a port shows its clients, who must speak ``protocol`` (ALPN)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.root)
    context.load_cert_chain(files.certificate, files.key, _no_passphrase)
    context.set_alpn_protocols([protocol])
    if files.root is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_passphrase() -> str:
    raise ValueError
