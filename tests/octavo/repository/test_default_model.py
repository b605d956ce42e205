"""The model that a newcomer starts."""

from pathlib import Path

from octavo.config import WeightsFormat
from octavo.repository import ModelRepository

REPOSITORY = Path(__file__).parents[3] / "model_repository"


def test_the_default_is_the_demo_model_in_bfloat16() -> None:
    (spec,) = ModelRepository([REPOSITORY]).spec("smollm2-135m-instruct")
    assert (spec.engine.weights_format, spec.engine.dtype, spec.version) == (WeightsFormat.GGUF, "bfloat16", 1)
    assert Path(spec.engine.weights).stat().st_size == 98_362_432
