"""For which grammar's process nobody waits, and how long; the test is the process and the clock."""

import socket
from multiprocessing.connection import Connection

import msgspec

from octavo.engine.board import Board
from octavo.engine.follower import First, Follower, Grammar, Masks
from octavo.engine.helper import Job


def say(process: Connection, follower: Follower, what: First | Masks) -> None:
    process.send_bytes(msgspec.msgpack.encode(what))
    follower.hear()


def test_who_is_late_once_is_waited_for_when_it_has_answered_and_who_is_late_again_only_after_a_while() -> None:
    (ours, theirs), (door, helper) = socket.socketpair(), socket.socketpair()
    with door, helper, Connection(theirs.detach()) as process, Connection(ours.detach()) as connection:
        follower = Follower(Job(connection, door), Grammar("regex", "a*"), Board(1))
        assert not follower.banned(100.0)
        follower.ban(100.0)
        assert follower.banned(100.0) and follower.banned(10_000.0)
        say(process, follower, First(bytes(4)))
        assert not follower.banned(100.0)

        bans = []
        for _ in range(3):
            follower.owed = True
            follower.ban(101.0)
            assert follower.banned(10_000.0)
            say(process, follower, Masks([]))
            bans.append(max(ms for ms in range(20_000) if follower.banned(101.0 + ms / 1000)))
        assert bans == [999, 1999, 3999]

        follower.owed = True
        follower.ban(10_000.0)
        say(process, follower, Masks([]))
        assert not follower.banned(10_000.0)
