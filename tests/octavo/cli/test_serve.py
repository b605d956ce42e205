"""``octavo serve``: flags under tritonserver's names become ``ServeOptions``."""

from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.cli import app
from octavo.serving import supervisor
from octavo.serving.grpc.limits import connection_limits
from octavo.serving.options import CompressionLevel, LogFormat, ModelControlMode, ServeOptions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """The options of every server that would have been started; each ends with 3."""
    seen: list[ServeOptions] = []
    monkeypatch.setattr(supervisor, "run", lambda options: seen.append(options) or 3)
    return seen


def test_the_defaults_are_tritons_ports_and_the_options_own(started: list[ServeOptions]) -> None:
    assert CliRunner().invoke(app, ["serve", "--model-store=models"]).exit_code == 3
    assert started == [ServeOptions(model_repository=(Path("models"),))]
    assert (started[0].http_port, started[0].grpc_port, started[0].metrics_port) == (8000, 8001, 8002)


def test_every_flag_arrives(started: list[ServeOptions]) -> None:
    flags = ["--model-repository=a", "--model-repository=b", "--model-control-mode=explicit", "--load-model=x", "--load-model=y"]
    flags += ["--no-strict-readiness", "--no-exit-on-error", "--exit-timeout-secs=2", "--front-ends=3", "--log-verbose"]
    CliRunner().invoke(app, ["serve", *flags, "--grpc-max-message-size=9", "--grpc-port=1", "--http-port=2", "--metrics-port=3"])
    assert started == [
        ServeOptions(
            model_repository=(Path("a"), Path("b")),
            model_control_mode=ModelControlMode.EXPLICIT,
            load_model=("x", "y"),
            strict_readiness=False,
            exit_on_error=False,
            exit_timeout_secs=2.0,
            front_ends=3,
            log_verbose=True,
            grpc_max_message_size=9,
            grpc_port=1,
            http_port=2,
            metrics_port=3,
        )
    ]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--grpc-use-ssl"], True),
        (["--grpc-use-ssl=1"], True),
        (["--grpc-use-ssl=True"], True),
        (["--grpc-use-ssl", "on"], True),
        (["--no-grpc-use-ssl"], False),
        (["--grpc-use-ssl=false"], False),
        (["--grpc-use-ssl", "0"], False),
    ],
)
def test_a_switch_takes_a_value_as_tritonservers_does(started: list[ServeOptions], words: list[str], value: bool) -> None:
    result = CliRunner().invoke(app, ["serve", *words, "--model-name", "", "--model-repository=a"])
    assert result.exit_code == 3, result.output
    assert started == [ServeOptions(model_repository=(Path("a"),), model_name="", grpc_use_ssl=value)]


@pytest.mark.parametrize("words", [["--grpc-use-ssl=yes"], ["--grpc-use-ssl", "yes"], ["--no-such-flag"], ["--front-ends=true"]])
def test_what_is_no_flag_or_no_value_of_it_is_refused(started: list[ServeOptions], words: list[str]) -> None:
    assert CliRunner().invoke(app, ["serve", "--model-repository=a", *words]).exit_code == 2
    assert not started


def test_flags_about_connections_become_limits(started: list[ServeOptions]) -> None:
    flags = {
        "grpc-keepalive-time": ("1", "keepalive_time", 0.001),
        "grpc-keepalive-timeout": ("2", "keepalive_timeout", 0.002),
        "grpc-keepalive-permit-without-calls": ("0", "keepalive_without_calls", False),
        "grpc-http2-max-pings-without-data": ("4", "pings_without_data", 4),
        "grpc-http2-min-recv-ping-interval-without-data": ("5", "ping_interval", 0.005),
        "grpc-http2-max-ping-strikes": ("6", "ping_strikes", 6),
        "grpc-max-connection-age": ("7", "max_age", 0.007),
        "grpc-max-connection-age-grace": ("8", "max_age_grace", 0.008),
        "grpc-infer-response-compression-level": ("medium", "compression", 6),
        "grpc-max-message-size": ("10", "max_message", 10),
        "grpc-max-concurrent-streams": ("11", "max_streams", 11),
        "grpc-max-metadata-size": ("1024", "max_metadata", 1024),
    }
    words = [f"--{flag}={value}" for flag, (value, _, _) in flags.items()]
    assert CliRunner().invoke(app, ["serve", "--model-repository=a", *words]).exit_code == 3
    limits = connection_limits(started[0])
    assert {name: getattr(limits, name) for name in limits.__struct_fields__} == {name: value for _, name, value in flags.values()}


def test_the_defaults_of_connections_and_logs() -> None:
    options = ServeOptions(model_repository=())
    assert (options.grpc_infer_response_compression_level, options.log_format) == (CompressionLevel.NONE, LogFormat.DEFAULT)
    limits = connection_limits(options)
    assert (limits.max_age, limits.max_age_grace, limits.compression) == (None, None, 0)


def test_every_option_is_a_flag_in_a_group_of_the_help() -> None:
    text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300"}).output
    for field in fields(ServeOptions):
        assert f"--{field.name.replace('_', '-')}" in text
    for group in ("Models", "Ports and processes", "TLS", "Who may do what", "Limits", "gRPC connections", "Logs and traces"):
        assert f"╭─ {group} ─" in text
    assert text.count("╭─ Options") == 1
