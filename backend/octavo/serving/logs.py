"""How a process of ours logs: one line per event on standard error, with time, level and process. Never a prompt."""

import logging
import time

from octavo.serving.options import LogFormat


def configure_logs(process: str, verbose: bool, style: LogFormat) -> None:
    """Log INFO and above, or DEBUG and above of our own code, under the name of the process."""
    formatter = logging.Formatter(f"%(asctime)s %(levelname)s {process}: %(message)s")
    if style is LogFormat.ISO8601:
        formatter.converter = time.gmtime
        formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("octavo").setLevel(logging.DEBUG if verbose else logging.INFO)
