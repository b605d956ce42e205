"""Octavo answers the client script as a real Triton did, but for what ``docs/conformance.md`` gives a reason for."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance import script
from conformance.__main__ import recorded
from conformance.compare import Difference, Reason, complaints, differences, reasons
from conformance.octavo_server import octavo


def test_every_difference_from_the_recorded_triton_has_its_reason() -> None:
    theirs = recorded()
    with octavo() as server:
        ours = script.run(server.grpc, server.http)
    assert set(ours) == set(theirs), "the cases have changed: `make conformance` records them anew"
    wrong = complaints(differences(theirs, ours), reasons())
    assert not wrong, "\n".join(wrong)


def test_a_difference_is_named_by_its_smallest_place() -> None:
    theirs = {"a": {"code": "OK", "reply": {"x": [1, 2], "y": 1}}, "b": {"code": "OK", "reply": {}}}
    ours = {"a": {"code": "OK", "reply": {"x": [1, 3], "z": 1}}, "b": {"code": "INTERNAL", "text": "no"}}
    assert differences(theirs, ours) == [
        Difference("a", "reply.x.1", 2, 3),
        Difference("a", "reply.y", 1, "(absent)"),
        Difference("a", "reply.z", "(absent)", 1),
        Difference("b", "code", "OK", "INTERNAL: no"),
    ]


def test_an_unexplained_difference_and_an_idle_reason_are_both_wrong() -> None:
    found = [Difference("a", "text", "x", "y"), Difference("b", "code", "x", "y")]
    unexplained, idle = complaints(found, [Reason("a", "*"), Reason("c*", "code")])
    assert "b · code" in unexplained
    assert "c* · code" in idle
