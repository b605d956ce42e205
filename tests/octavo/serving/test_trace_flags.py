"""What ``--trace-config`` may say."""

import pytest

from octavo.protocol.settings import TraceSettings
from octavo.serving.options import BadFlag
from octavo.serving.settings import TraceExport
from octavo.serving.trace_flags import read_trace_flags


def test_nothing_said_is_nothing_traced() -> None:
    assert read_trace_flags(()) == (TraceSettings(trace_level=False, trace_rate=1000, trace_count=-1, log_frequency=0), None)


def test_all_that_can_be_said() -> None:
    settings, export = read_trace_flags(
        [
            "mode=opentelemetry",
            "rate=10",
            "count=5",
            "level=TIMESTAMPS",
            "opentelemetry,url=http://collector:4318/v1/traces",
            "opentelemetry,resource=service.name=a",
            "opentelemetry,resource=b=c=d",
            "opentelemetry,bsp_max_queue_size=4096",
        ]
    )
    assert settings == TraceSettings(trace_level=True, trace_rate=10, trace_count=5, log_frequency=0)
    assert export == TraceExport(
        url="http://collector:4318/v1/traces",
        resource={"service.name": "a", "b": "c=d"},
        batch={"bsp_max_queue_size": 4096},
    )


def test_the_mode_alone_traces() -> None:
    settings, export = read_trace_flags(["mode=opentelemetry"])
    assert (settings.trace_level, export) == (True, TraceExport())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["rate"], "option format is"),
        (["mode=file"], "mode must be 'triton' or 'opentelemetry', not 'file'"),
        (["nope=1"], "no setting 'nope'"),
        (["rate=x"], "Unable to parse 'trace_rate', got: x"),
        (["level=TIMESTAMPS"], "needs mode=opentelemetry"),
        (["triton,file=/tmp/trace.json"], "no trace file is written"),
        (["mode=opentelemetry", "opentelemetry,nope=1"], "no setting 'nope'"),
        (["mode=opentelemetry", "opentelemetry,resource=x"], "resource must be '<key>=<value>'"),
        (["mode=opentelemetry", "opentelemetry,bsp_schedule_delay=0"], "must be a whole number greater than 0"),
    ],
)
def test_what_cannot_be_said(flags: list[str], text: str) -> None:
    with pytest.raises(BadFlag, match=text):
        read_trace_flags(flags)
