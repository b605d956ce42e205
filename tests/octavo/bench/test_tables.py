"""Tables beside peers: the better peer counts, and only for the same load."""

import json
from pathlib import Path

import pytest

from octavo.bench.itl import ItlResult
from octavo.bench.results import Line, Measurement, PhaseResult, Profile, Rates, read_ours, read_peer, write
from octavo.bench.startup import StartUp
from octavo.bench.tables import comparison_table, notes, phases_table, profile_table

GAPS = {
    "quiet_p50_ms": 4.0, "quiet_p99_ms": 5.0, "busy_p50_ms": 6.0, "busy_p99_ms": 8.0, "busy_max_ms": 9.0, "ttft_p50_ms": 200.0,
    "ttft_max_ms": 300.0,
}  # fmt: skip


def result(name: str, n: int, isl: int, osl: int, seconds: float, decode: Rates | None = None) -> PhaseResult:
    whole = Rates(3, seconds, 100.0, 0.1, 400.0, 0.6)
    return PhaseResult(
        phase=name, n=n, isl=isl, osl=osl, seconds=seconds, output_tok_s=1, input_tok_s=1, ms_per_token=1, ttft_p50=1,
        step_p50_ms=1, step_max_ms=1, host_us=1, floor=seconds / 2, whole=whole, decode=decode,
    )  # fmt: skip


@pytest.fixture
def ours(tmp_path: Path) -> Measurement:
    decode = Rates(511, 2.044, 3900.0, 0.9, 10.0, 0.02)
    measurement = Measurement(
        machine={"device": "a GPU"},
        settings={},
        ceilings={"copy_gb_s": 4300.0, "matmul_tflop_s": 700.0},
        start=StartUp(1.0, 2.0, 3.0, 0.5),
        phases=[
            result("b1", 1, 128, 512, 2.048, decode),
            result("long", 32, 8192, 101, 11.0),
            result("fill", 32, 8192, 1, 1.0),
            result("thr", 1000, 100, 100, 10.0),
        ],
        itl=ItlResult(**GAPS),
    )
    write(measurement, tmp_path / "ours.json")
    assert read_ours(tmp_path / "ours.json") == measurement
    return measurement


def cells(table: str, first: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def write_peer(path: Path, *rows: dict) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_alone(ours: Measurement) -> None:
    table = phases_table(ours)
    assert cells(table, "b1")[2:] == ["2.05", "4", "4", "1", "250", "62.5", "3,900 GB/s", "90%", "50%"]
    assert cells(table, "thr")[-3:] == ["400 TFLOP/s", "60%", "50%"]
    text = " ".join(notes(ours))
    assert "Start to first token: 6.5 s" in text
    assert "p99 2.00 times the quiet p50" in text


def test_beside_peers(ours: Measurement, tmp_path: Path) -> None:
    default = write_peer(
        tmp_path / "default.json",
        {"phase": "start", "seconds": 65},
        {"phase": "b1", "n": 1, "isl": 128, "osl": 512, "seconds": 2.56, "out_tok_s": 200},
        {"phase": "thr", "n": 999, "isl": 100, "osl": 100, "seconds": 1.0},
    )
    tuned = write_peer(
        tmp_path / "tuned.json",
        {"phase": "b1", "n": 1, "isl": 128, "osl": 512, "seconds": 3.0},
        {"phase": "long", "n": 32, "isl": 8192, "osl": 101, "seconds": 14.0},
        {"phase": "fill", "n": 32, "isl": 8192, "osl": 1, "seconds": 2.0},
        {"phase": "itl", **GAPS, "busy_p99_ms": 80.0},
    )
    table = comparison_table(ours, [read_peer(default), read_peer(tuned)])
    assert cells(table, "phase")[3:6] == ["octavo", "default", "tuned"]
    assert cells(table, "b1")[2:] == ["ms/token", "4", "5", "5.86", "1.25 ×", "3,900 GB/s", "90%", "2"]
    assert cells(table, "long, prefill taken off")[2:7] == ["ms/token", "100", "–", "120", "1.20 ×"]
    assert cells(table, "fill")[2:7] == ["input tok/s", "262,144", "–", "131,072", "2.00 ×"]
    assert cells(table, "thr")[2:7] == ["output tok/s", "10,000", "–", "–", "–"]
    assert cells(table, "gap, prompts arriving, p99")[2:7] == ["ms", "8", "–", "80", "10.00 ×"]
    assert cells(table, "start to first token")[2:7] == ["s", "6.5", "65", "–", "10.00 ×"]


def test_beside_another_run_of_ours(ours: Measurement, tmp_path: Path) -> None:
    table = comparison_table(ours, [read_peer(tmp_path / "ours.json")])
    assert cells(table, "b1")[2:6] == ["ms/token", "4", "4", "1.00 ×"]
    assert cells(table, "start to first token")[2:6] == ["s", "6.5", "6.5", "1.00 ×"]


def test_a_profile() -> None:
    lines = [Line("gemv", "qkv", 2, 4.0, 3870.0), Line("argmax", "after the layers", 1, 2.0, None)]
    table = profile_table(Profile(machine={}, model="m", rows=1, context=144, copy_gb_s=4300.0, lines=lines))
    assert cells(table, "gemv") == ["gemv", "qkv", "2", "4.00", "8.0", "80.0%", "3,870", "90%"]
    assert cells(table, "argmax")[4:] == ["2.0", "20.0%", "", ""]
    assert cells(table, "all")[4] == "10.0"
