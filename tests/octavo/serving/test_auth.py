"""Rules as an operator writes them, and what a gate makes of them, without a server."""

from pathlib import Path

import pytest

from octavo.errors import Forbidden, OctavoError, Restricted, Unauthenticated
from octavo.serving.auth import AccessRules, Gate, read_groups, read_restrictions, read_tokens
from octavo.serving.groups import Group
from octavo.serving.options import BadFlag

TOKENS = "# who may do what\ninference, metadata: a-token\n\nall: root:with:colons\nstatistics: a-token\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    return path


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    rules = AccessRules(read_tokens(written(tmp_path, TOKENS)), frozenset({Group.HEALTH}))
    return Gate(rules, {}, "protocol")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_opens_the_groups_of_all_its_lines_and_no_other(gate: Gate) -> None:
    for group in (Group.INFERENCE, Group.METADATA, Group.STATISTICS):
        gate.check(group, bearer("a-token").get)
    with pytest.raises(Forbidden, match="do not allow the calls of the group 'model-repository'"):
        gate.check(Group.MODEL_REPOSITORY, bearer("a-token").get)


@pytest.mark.parametrize("headers", [bearer("root:with:colons"), {"authorization": "bearer  root:with:colons "}])
def test_all_means_every_group_but_not_what_is_in_none(gate: Gate, headers: dict[str, str]) -> None:
    for group in Group:
        gate.check(group, headers.get)
    with pytest.raises(Forbidden, match="it belongs to no group"):
        gate.check(None, headers.get)


def test_an_api_key_header_does_as_well(gate: Gate) -> None:
    gate.check(Group.INFERENCE, {"x-api-key": "a-token"}.get)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer(""), bearer("a-toke"), bearer("A-TOKEN"), {"authorization": "Basic a-token"}, {"authorization": "a-token"}],
)
def test_without_a_known_token_only_open_groups_are_left(gate: Gate, headers: dict[str, str]) -> None:
    gate.check(Group.HEALTH, headers.get)
    for group in {*Group, None} - {Group.HEALTH}:
        with pytest.raises(Unauthenticated):
            gate.check(group, headers.get)


def test_without_rules_nothing_is_closed() -> None:
    gate = Gate(AccessRules(), {}, "protocol")
    assert not gate.closed
    gate.check(None, {}.get)


def test_only_digests_of_tokens_are_kept(tmp_path: Path) -> None:
    assert "a-token" not in repr(read_tokens(written(tmp_path, TOKENS)))


@pytest.mark.parametrize("text", ["", "# nothing\n", "all\n", "all:\n", ": x\n", "infer: x\n", "all: two words\n", "all: ü\n"])
def test_a_token_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFlag) as caught:
        read_tokens(written(tmp_path, text))
    assert "words" not in str(caught.value)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFlag, match="cannot be read: No such file"):
        read_tokens(tmp_path / "none")


def test_groups() -> None:
    assert read_groups("") == frozenset()
    assert read_groups("health, metrics") == {Group.HEALTH, Group.METRICS}
    with pytest.raises(BadFlag, match="There is no group 'admin'; the groups are health, "):
        read_groups("admin")


def restricted(*flags: str) -> Gate:
    restrictions = read_restrictions(flags, "protocol", "grpc-restricted-protocol", "triton-grpc-protocol-")
    return Gate(AccessRules(), restrictions, "protocol")


def test_a_restriction_closes_its_groups_alone() -> None:
    gate = restricted("model-repository,logging:Admin-Key=a=b", "health:k=v")
    gate.check(Group.INFERENCE, {}.get)
    gate.check(Group.LOGGING, {"triton-grpc-protocol-admin-key": "a=b"}.get)
    for headers in ({}, {"triton-grpc-protocol-admin-key": "a"}, {"triton-grpc-protocol-k": "v"}):
        with pytest.raises(Restricted) as caught:
            gate.check(Group.MODEL_REPOSITORY, headers.get)
        assert str(caught.value) == "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["model-repository,health:k1=v1", "metadata,health:k2=v2"],
            "restricted protocol 'health' can not be specified in multiple",
        ),
        (["model-reposit,health:k1=v1"], "unknown restricted protocol 'model-reposit'"),
        (["metrics:k=v"], "unknown restricted protocol 'metrics'"),
        (["health"], "--grpc-restricted-protocol option format is"),
        (["health:k"], "--grpc-restricted-protocol option format is"),
        (["health:=v"], "--grpc-restricted-protocol option format is"),
    ],
)
def test_restrictions_are_refused_in_tritons_words(flags: list[str], text: str) -> None:
    with pytest.raises(BadFlag, match=text):
        restricted(*flags)


def test_a_call_has_to_pass_restrictions_and_credentials(tmp_path: Path) -> None:
    rules = AccessRules(read_tokens(written(tmp_path, TOKENS)), frozenset({Group.HEALTH}))
    gate = Gate(rules, read_restrictions(["health,inference:k=v"], "api", "http-restricted-api"), "API")
    gate.check(Group.INFERENCE, {"k": "v", **bearer("a-token")}.get)
    for group, headers in ((Group.INFERENCE, {"k": "v"}), (Group.INFERENCE, bearer("a-token")), (Group.HEALTH, {})):
        with pytest.raises(OctavoError):
            gate.check(group, headers.get)
