"""Who may do what: the rules that an operator sets, and the ``Gate`` of a transport that holds calls to them. Knows no wire.

Two rules, and a call has to pass both. A restriction (tritonserver's) asks for one header with one value for its groups and
leaves all others open. Credentials close everything but the groups that are open to all; a token opens the groups it is for.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from octavo.errors import Forbidden, Restricted, Unauthenticated
from octavo.serving.groups import Group
from octavo.serving.options import BadFlag

ALL_GROUPS = "all"
GRPC_HEADER_PREFIX = "triton-grpc-protocol-"
NO_CREDENTIALS = (
    "This call needs credentials: send the header 'authorization' with the value 'Bearer <token>', "
    "or the header 'x-api-key' with the token, and a token that this server knows."
)
Headers = Callable[[str], str | None]


class Credential(msgspec.Struct, frozen=True):
    """A token, of which only the SHA-256 is kept, and the groups that it opens."""

    digest: bytes
    groups: frozenset[Group]


class Restriction(msgspec.Struct, frozen=True):
    """A header that a call has to carry, and the SHA-256 of its value."""

    header: str
    digest: bytes


class AccessRules(msgspec.Struct, frozen=True):
    """Everything that an operator has said. Without ``credentials``, ``open_groups`` means nothing."""

    credentials: list[Credential] = []
    open_groups: frozenset[Group] = frozenset()
    grpc_restrictions: dict[Group, Restriction] = {}
    http_restrictions: dict[Group, Restriction] = {}


class Gate:
    """Holds the calls of one transport to the rules."""

    def __init__(self, rules: AccessRules, restrictions: Mapping[Group, Restriction], feature: str) -> None:
        """``feature``: what Triton calls a group on this transport, "protocol" or "API"."""
        self._credentials, self._open = rules.credentials, rules.open_groups
        self._restrictions, self._feature = restrictions, feature

    @property
    def closed(self) -> bool:
        """Whether there is anything that it refuses."""
        return bool(self._credentials or self._restrictions)

    def protects(self, group: Group) -> bool:
        """Whether a call of ``group`` has to show something that not everybody knows."""
        return group in self._restrictions or (bool(self._credentials) and group not in self._open)

    def check(self, group: Group | None, header: Headers) -> None:
        """Raise unless a call of ``group`` may go on; ``header`` gives the value of one by its name in small letters."""
        if group is not None and group in self._restrictions:
            self._check_restriction(self._restrictions[group], header)
        if self._credentials and group not in self._open:
            self._check_token(group, header)

    def _check_restriction(self, restriction: Restriction, header: Headers) -> None:
        value = header(restriction.header)
        if value is None or not hmac.compare_digest(_digest(value), restriction.digest):
            raise Restricted(f"This {self._feature} is restricted, expecting header '{restriction.header}'")

    def _check_token(self, group: Group | None, header: Headers) -> None:
        """Every credential is compared, in constant time, so that how long it takes says nothing of any of them."""
        digest = _digest(_token(header))
        known = [one for one in self._credentials if hmac.compare_digest(digest, one.digest)]
        if not known:
            raise Unauthenticated(NO_CREDENTIALS)
        if group is None:
            raise Forbidden("No credentials allow this call: it belongs to no group of calls that this server knows.")
        if not any(group in one.groups for one in known):
            raise Forbidden(f"These credentials do not allow the calls of the group '{group}'.")


def read_tokens(path: Path) -> list[Credential]:
    """The credentials of a file: lines of ``group,group: token``, with ``all`` for every group. Raises ``BadFlag``."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFlag(f"The token file cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.") from None
    read = [_credential(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not read:
        raise BadFlag("The token file holds no token; a line is 'group,group: token'.")
    return read


def read_groups(names: str) -> frozenset[Group]:
    """The groups of a comma-separated list, which may be empty. Raises ``BadFlag``."""
    return frozenset(_group(name) for name in (part.strip() for part in names.split(",")) if name)


def read_restrictions(flags: Iterable[str], feature: str, flag: str, prefix: str = "") -> dict[Group, Restriction]:
    """What tritonserver's restriction flags say: ``group,group:key=value`` each. Raises ``BadFlag``, with its texts."""
    restrictions: dict[Group, Restriction] = {}
    for text in flags:
        names, colon, pair = text.partition(":")
        key, equals, value = pair.partition("=")
        if not (names and colon and key and equals and value):
            raise BadFlag(f"--{flag} option format is '<config name>:<setting>=<value>'.")
        for name in names.split(","):
            if name not in set(Group) - {Group.METRICS, Group.PAGE, Group.DEBUG}:
                raise BadFlag(f"unknown restricted {feature} '{name}'")
            if name in restrictions:
                raise BadFlag(f"restricted {feature} '{name}' can not be specified in multiple config groups")
            restrictions[Group(name)] = Restriction((prefix + key).lower(), _digest(value))
    return restrictions


def _credential(number: int, line: str) -> Credential:
    names, colon, token = (part.strip() for part in line.partition(":"))
    if not colon or not names or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise BadFlag(f"Line {number} of the token file must be 'group,group: token', the token in ASCII and without spaces.")
    groups = frozenset(Group) if names == ALL_GROUPS else read_groups(names)
    return Credential(_digest(token), groups)


def _group(name: str) -> Group:
    try:
        return Group(name)
    except ValueError:
        raise BadFlag(f"There is no group '{name}'; the groups are {', '.join(Group)}.") from None


def _token(header: Headers) -> str:
    scheme, _, token = (header("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else header("x-api-key") or ""


def owner_of(header: Headers) -> bytes:
    """Whose a call is, for none but its sender to end it: the SHA-256 of its token, of nothing without one."""
    return _digest(_token(header))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
