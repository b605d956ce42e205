"""``octavo serve``: flags under tritonserver's names become ``ServeOptions``."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.cli import app
from octavo.serving import supervisor
from octavo.serving.options import ModelControlMode, ServeOptions


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
