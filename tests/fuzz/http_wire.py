"""The HTTP port of a real server: damaged bodies on connections that last, and damaged heads on ones that do not."""

import http.client
import random
from collections import Counter

from server import Server

from fuzz import http_cases
from fuzz.finding import Finding
from fuzz.wire import PATIENCE, exchange

FINE = {200, 400, 404, 405, 413, 431, 501, 503}
BODIES, HEADS, SILENCE = 95, 5, 0.2
OURS = b"An internal error has ended this request"


def http_wire(server: Server, count: int, seed: int) -> Counter[str]:
    """Send ``server`` as many calls. Raises ``Finding``."""
    chance, ends = random.Random(seed), Counter[str]()
    while (left := count - ends.total()) > 0:
        ends += _lasting(server, list(http_cases.wire_cases(min(left, BODIES), chance)))
        for data in http_cases.raw_cases(min(HEADS, count - ends.total()), chance):
            ends[_raw(server, data)] += 1
    return ends


def _lasting(server: Server, calls: list[http_cases.Call]) -> Counter[str]:
    """One after the other on one connection, unless the server ends it."""
    ends: Counter[str] = Counter()
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
    try:
        for call in calls:
            connection.request("POST", call.path, call.body, call.headers)
            response = connection.getresponse()
            said = response.read()
            if response.status not in FINE or OURS in said:
                raise Finding(call, f"{response.status}: {said[:500]!r}")
            ends[str(response.status)] += 1
    except (OSError, http.client.HTTPException) as error:
        raise Finding(call, error) from error
    finally:
        connection.close()
    return ends


def _raw(server: Server, data: bytes) -> str:
    """How the server answers a call with a damaged head, which may be none."""
    said = exchange(server.http, data, SILENCE)
    if not said:
        return "hung up"
    status = int(said.split(b" ", 2)[1])
    if status not in FINE or OURS in said:
        raise Finding(data, said[:500])
    return f"{status} to a damaged head"
