"""How a process of ours logs: one line per event on standard error, with time, level and process. Never a prompt."""

import logging


def configure_logs(process: str, verbose: bool) -> None:
    """Log INFO and above, or DEBUG and above of our own code, under the name of the process."""
    logging.basicConfig(format=f"%(asctime)s %(levelname)s {process}: %(message)s", level=logging.WARNING)
    logging.getLogger("octavo").setLevel(logging.DEBUG if verbose else logging.INFO)
