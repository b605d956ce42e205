"""Errors survive the way between processes with their type and text."""

import msgspec
import pytest

from octavo.errors import MAX_SHOWN, ErrorFrame, ErrorKind, Internal, OctavoError, shown


@pytest.mark.parametrize("cls", OctavoError.__subclasses__())
def test_an_error_crosses_as_itself(cls: type[OctavoError]) -> None:
    back = ErrorFrame.of(cls("It was wrong.")).exception()
    assert type(back) is cls
    assert str(back) == "It was wrong."


def test_a_text_that_cannot_be_encoded_crosses_as_an_escape() -> None:
    frame = msgspec.msgpack.decode(msgspec.msgpack.encode(ErrorFrame.of(Internal("Half a pair: \ud800."))), type=ErrorFrame)
    assert frame.text == "Half a pair: \\ud800."


def test_each_kind_has_one_type() -> None:
    assert sorted(cls.kind for cls in OctavoError.__subclasses__()) == sorted(ErrorKind)
    assert Internal.kind is ErrorKind.INTERNAL


def test_a_name_in_a_text_is_whole_or_cut() -> None:
    assert shown("n" * MAX_SHOWN) == "n" * MAX_SHOWN
    assert shown("n" * 100_000) == "n" * MAX_SHOWN + "..."
