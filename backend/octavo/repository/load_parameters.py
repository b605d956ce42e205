"""The parameters of a RepositoryModelLoad call: which of them a load listens to. Knows the message, not the model."""

from collections.abc import Mapping

from octavo.errors import InvalidRequest, Unsupported, shown
from octavo.wire import pb


def override_config(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> str | None:
    """The configuration, a ``ModelConfig`` in JSON, that the caller brings in place of ``config.pbtxt``.

    Raises ``InvalidRequest`` with Triton's texts, and ``Unsupported`` for ``file:`` parameters: weights come from the
    repository alone, so that a caller cannot place files on the server.
    """
    for name, value in parameters.items():
        if name.startswith("file:"):
            raise Unsupported("Load parameters that start with 'file:' are not supported; files come from the repository.")
        if name != "config":
            raise InvalidRequest(f"unrecognized load parameter '{shown(name)}'.")
        if value.WhichOneof("parameter_choice") != "string_param":
            raise InvalidRequest("invalid value type for load parameter 'config', expected string_param.")
    return parameters["config"].string_param if "config" in parameters else None
