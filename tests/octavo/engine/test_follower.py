"""For which grammar's process is waited, how long, and for which not at all; the test is the process and the clock."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import msgspec

from octavo.engine.board import Board
from octavo.engine.follower import First, Follower, Grammar, Masks, Match
from octavo.engine.helper import Job


@contextmanager
def follower_of_test(board: Board | None = None) -> Iterator[tuple[Connection, Follower]]:
    (ours, theirs), (door, helper) = socket.socketpair(), socket.socketpair()
    with door, helper, Connection(theirs.detach()) as process, Connection(ours.detach()) as connection:
        yield process, Follower(Job(connection, door), Grammar("regex", "a*"), board or Board(1))


def say(process: Connection, follower: Follower, what: First | Masks) -> None:
    process.send_bytes(msgspec.msgpack.encode(what))
    follower.hear()


def test_who_is_late_once_is_waited_for_when_it_has_answered_and_who_is_late_again_only_after_a_while() -> None:
    with follower_of_test() as (process, follower):
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


def test_steps_wait_for_a_slow_grammar_a_fifth_of_the_time_and_for_a_fast_one_always() -> None:
    drawn = random.Random(5)
    with follower_of_test() as (_, follower):
        now, waited, steps = 100.0, 0.0, 4000
        for _ in range(steps):  # masks that are late by 45 ms, under steps of 1 to 30 ms
            wait = min(0.045, follower.patience(now))
            follower.waited(wait)
            waited += wait
            now += wait + drawn.uniform(0.001, 0.03)
        most = 0.048 + 0.2 * (now - 100.0) + 0.002 * steps
        assert 0.9 * most < waited <= most + 1e-6
        for _ in range(steps):
            assert follower.patience(now) >= 0.002
            follower.waited(0.002)
            now += 0.0021


def test_who_was_stopped_while_a_step_waited_does_not_lose_patience_for_long() -> None:
    """Or nobody would be waited for at all, and each that was would be banned for longer."""
    with follower_of_test() as (_, follower):
        follower.patience(100.0)
        follower.waited(60.0)
        assert follower.patience(160.0) == 0.002 + 0.048
        follower.waited(0.3)
        assert follower.patience(160.3) >= 0.002


def test_those_who_wait_for_their_turn_take_no_memory() -> None:
    board = Board(1)
    with follower_of_test(board) as (process, follower):
        matches = [Match(number, (b"", number), follower.grammar) for number in range(1000)]
        for match in matches:
            follower.begin(match)
        say(process, follower, First(b"\1\0\0\0"))
        assert all(match.ready for match in matches)
        assert len(board.masks) == 0
        first, second, *_ = matches
        follower.start(first)
        board.masks[first.place] = 5
        follower.start(second)
        follower.start(first)
        assert (board.masks[first.place], board.masks[second.place], len(board.masks)) == (5, 1, 64)


def test_the_process_of_a_grammar_that_cannot_be_followed_is_told_of_nobody_and_goes_on_to_say_so() -> None:
    """It waits for nothing but the end: whatever it hears is that, and the next one with its grammar would pay for it again."""
    with follower_of_test() as (process, follower):
        process.recv_bytes()
        recv_handle(process)
        for number in (1, 2):
            match = Match(number, (b"", number), follower.grammar)
            follower.begin(match)
            if number == 1:
                say(process, follower, First(b"", "it is wrong"))
            assert follower.failed == [(match, "it is wrong")]
            follower.failed = []
            follower.end(match)
            follower.tell()
        assert not process.poll()
