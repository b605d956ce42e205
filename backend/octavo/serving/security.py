"""``Security``: what a front end has to know of certificates and of who may do what, read from the flags once."""

import msgspec

from octavo.serving.auth import GRPC_HEADER_PREFIX, AccessRules, Gate, read_groups, read_restrictions, read_tokens
from octavo.serving.groups import Group
from octavo.serving.options import BadFlag, ServeOptions
from octavo.serving.tls import TlsFiles, tls_files


class Security(msgspec.Struct, frozen=True):
    """The rules of a server and the certificates of its two transports, each None without TLS."""

    access: AccessRules
    grpc_tls: TlsFiles | None
    http_tls: TlsFiles | None

    def grpc_gate(self) -> Gate:
        """Who may do what over gRPC."""
        return Gate(self.access, self.access.grpc_restrictions, "protocol")

    def http_gate(self) -> Gate:
        """Who may do what over HTTP, the metrics port included."""
        return Gate(self.access, self.access.http_restrictions, "API")


def read_security(options: ServeOptions) -> Security:
    """What the flags and the files that they name say. Raises ``BadFlag``."""
    o = options
    access = AccessRules(
        credentials=read_tokens(o.auth_token_file) if o.auth_token_file else [],
        open_groups=read_groups(o.auth_open_groups),
        grpc_restrictions=read_restrictions(o.grpc_restricted_protocol, "protocol", "grpc-restricted-protocol", GRPC_HEADER_PREFIX),
        http_restrictions=read_restrictions(o.http_restricted_api, "api", "http-restricted-api"),
    )
    if o.debug_page and (not access.credentials or Group.DEBUG in access.open_groups):
        raise BadFlag("--debug-page needs --auth-token-file, and the group 'debug' must not be open: it shows the server's inside.")
    return Security(
        access,
        tls_files("grpc", o.grpc_use_ssl, o.grpc_use_ssl_mutual, o.grpc_server_cert, o.grpc_server_key, o.grpc_root_cert),
        tls_files("http", o.http_use_ssl, o.http_use_ssl_mutual, o.http_server_cert, o.http_server_key, o.http_root_cert),
    )
