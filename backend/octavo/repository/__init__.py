"""The model repository: ``config.pbtxt`` and ``model.json`` -> ``ModelSpec``. Knows files, not engines, and imports no torch."""

from octavo.repository.load_parameters import override_config
from octavo.repository.repository import ModelRepository
from octavo.repository.spec import ModelSpec

__all__ = ["ModelRepository", "ModelSpec", "override_config"]
