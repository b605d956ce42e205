"""The parameters of a load over gRPC, with Triton's texts."""

import pytest

from octavo.errors import InvalidRequest, Unsupported
from octavo.repository import override_config
from octavo.wire import pb


def parameters(**values: dict) -> dict:
    made = {name: pb.ModelRepositoryParameter(**value) for name, value in values.items()}
    return pb.RepositoryModelLoadRequest(parameters=made).parameters


def test_none_and_config() -> None:
    assert override_config(parameters()) is None
    assert override_config(parameters(config={"string_param": "{}"})) == "{}"
    assert override_config(parameters(config={"string_param": ""})) == ""


def test_an_unknown_one() -> None:
    with pytest.raises(InvalidRequest, match=r"^unrecognized load parameter 'foo'\.$"):
        override_config(parameters(foo={"bool_param": True}))


@pytest.mark.parametrize("value", [{}, {"bool_param": True}, {"bytes_param": b"{}"}])
def test_a_config_of_another_type(value: dict) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid value type for load parameter 'config', expected string_param\.$"):
        override_config(parameters(config=value))


def test_files_are_refused() -> None:
    with pytest.raises(Unsupported, match="file:"):
        override_config(parameters(config={"string_param": "{}"}, **{"file:1/model.json": {"bytes_param": b"{}"}}))
