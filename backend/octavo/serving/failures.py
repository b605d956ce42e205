"""``internal``: what a client and the log read about a bug of ours, joined by an id. The only place where such text is made."""

import logging
import secrets

from octavo.errors import Internal


def internal(error: BaseException, log: logging.Logger) -> Internal:
    """The error to send in place of ``error``, which is logged with its trace under the same id."""
    mark = secrets.token_hex(4)
    log.error("Internal error %s", mark, exc_info=error)
    return Internal(f"An internal error has ended this request; the server's log has the details under the id {mark}.")
