"""What the server says of itself, whatever the transport."""

from octavo import __version__

NAME = "octavo"
VERSION = __version__
EXTENSIONS = [
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
]
