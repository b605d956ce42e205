"""A light client of answers that stream, in a process of its own, the same for every server. Knows the wire only.

Run as ``python -m octavo.bench.streams`` with a ``Job`` as JSON on its standard input. It prints ``begin`` and ``end`` when what
counts begins and ends, and then what it saw. Messages are kept as bytes and read once all of them are there.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Sequence
from functools import partial

import msgspec
import uvloop

from octavo.bench.grpc_lanes import GrpcConnection, GrpcLane
from octavo.bench.lanes import Door, Job, Lane, OpenAiLane


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What came within ``seconds``: messages and tokens.

    ``arrivals``: of each request that began in them and ended, when each of its tokens came (``time.monotonic``).
    """

    seconds: float
    messages: int
    tokens: int
    arrivals: list[list[float]]


async def hold(job: Job) -> None:
    """Open the streams, use each once, say so, and keep them open until this process is ended."""
    lanes = await open_lanes(job)
    await asyncio.gather(*(lane.ask() for lane in lanes))
    print("begin", flush=True)
    await asyncio.get_running_loop().create_future()


async def run(job: Job) -> Seen:
    """Do ``job``."""
    lanes = await open_lanes(job)
    start = time.monotonic() + job.warm_up
    end = start + job.seconds
    loop = asyncio.get_running_loop()
    for name, at in (("begin", start), ("end", end)):
        loop.call_later(at - time.monotonic(), partial(print, name, flush=True))
    await asyncio.gather(*(lane.run(end) for lane in lanes))
    for lane in lanes:
        lane.close()
    answers = [(lane.arrivals(messages), messages) for lane in lanes for messages in lane.answers()]
    short = [len(arrivals) for arrivals, _ in answers if len(arrivals) != job.tokens]
    if short:
        raise RuntimeError(f"Answers of {job.tokens} tokens had {short[:5]} instead.")
    return Seen(
        seconds=job.seconds,
        messages=sum(start <= message.at < end for _, messages in answers for message in messages),
        tokens=sum(start <= at < end for arrivals, _ in answers for at in arrivals),
        arrivals=[arrivals for arrivals, _ in answers if start <= arrivals[0]],
    )


async def open_lanes(job: Job) -> Sequence[Lane]:
    """Open all streams."""
    if job.door is Door.OPENAI:
        return [OpenAiLane(number, job) for number in range(job.lanes)]
    connections = [GrpcConnection(job.address) for _ in range(job.connections)]
    await asyncio.gather(*(connection.connect() for connection in connections))
    return [GrpcLane(number, job, connections[number % job.connections]) for number in range(job.lanes)]


async def report(job: Job) -> None:
    """Do ``job`` and write what was seen; the connections go with this process."""
    sys.stdout.buffer.write(msgspec.json.encode(await run(job)) + b"\n")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Do the job on the standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    gc.disable()  # nothing is in cycles, and a pause would count as the server's
    uvloop.run(hold(job) if job.idle else report(job))


if __name__ == "__main__":
    main()
