"""A reserved port is ours alone, and our own processes can share it."""

import socket

import pytest

from octavo.serving.ports import PortTaken, Reservation, authority, is_loopback, listener


def test_a_free_port_is_chosen_and_shared_by_our_listeners() -> None:
    with Reservation("gRPC", "127.0.0.1", 0) as reservation:
        assert reservation.port > 0
        listeners = [listener("127.0.0.1", reservation.port) for _ in range(2)]
        with socket.create_connection(("127.0.0.1", reservation.port), timeout=5):
            pass
        for one in listeners:
            one.close()


def test_a_reservation_does_not_listen() -> None:
    with Reservation("HTTP", "127.0.0.1", 0) as reservation, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reservation.port), timeout=5)


def test_a_port_on_which_somebody_listens_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"The metrics port {port} of address 127\.0\.0\.1 cannot be used"):
            Reservation("metrics", "127.0.0.1", port)


def test_even_one_that_would_share_is_refused() -> None:
    with Reservation("gRPC", "127.0.0.1", 0) as reservation:
        other = listener("127.0.0.1", reservation.port)
        with pytest.raises(PortTaken):
            Reservation("gRPC", "127.0.0.1", reservation.port)
        other.close()


def test_an_address_that_is_none() -> None:
    with pytest.raises(PortTaken, match=r"cannot be used: .+\."):
        Reservation("gRPC", "no.such.host.invalid", 0)


def test_names_of_addresses() -> None:
    assert authority("::1", 8001) == "[::1]:8001"
    assert authority("0.0.0.0", 8001) == "0.0.0.0:8001"
    assert is_loopback("127.0.0.2")
    assert not is_loopback("0.0.0.0")
