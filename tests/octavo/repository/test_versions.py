"""Version folders and version policies."""

import pytest

from octavo.repository.versions import served_versions, version_of
from octavo.wire import mc


@pytest.mark.parametrize(("name", "version"), [("1", 1), ("10", 10), ("9223372036854775807", 2**63 - 1)])
def test_numbers_are_versions(name: str, version: int) -> None:
    assert version_of(name) == version


@pytest.mark.parametrize("name", ["0", "01", "-1", "+1", "1.0", "v1", "", " 1", "1 ", "٣", "9223372036854775808", "1" * 30, "1_0"])
def test_anything_else_is_not(name: str) -> None:
    assert version_of(name) is None


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({}, [10]),
        ({"latest": {}}, [10]),
        ({"latest": {"num_versions": 2}}, [3, 10]),
        ({"latest": {"num_versions": 9}}, [1, 3, 10]),
        ({"all": {}}, [1, 3, 10]),
        ({"specific": {"versions": [3, 1]}}, [1, 3]),
        ({"specific": {"versions": [2]}}, []),
    ],
)
def test_policies(policy: dict, served: list[int]) -> None:
    assert served_versions([10, 1, 3], mc.ModelVersionPolicy(**policy), "m") == served


def test_a_missing_specific_version_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    served_versions([1], mc.ModelVersionPolicy(specific={"versions": [1, 7]}), "m")
    assert "Version 7 of model 'm'" in caplog.text
