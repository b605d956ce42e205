"""``python -m server_of FRONT_END ENGINE serve …``: ``octavo serve`` whose child processes run those modules.

A front end has less time than a minute to start, if ``--engine-timeout-secs`` is as short.
"""

import sys
from functools import partial

from octavo.cli import app
from octavo.serving import frontends, supervisor
from octavo.serving.children import Programs

if __name__ == "__main__":
    programs = Programs(*sys.argv[1:3])
    del sys.argv[1:3]
    frontends.START_PATIENCE = 12.0
    supervisor.run = partial(supervisor.run, programs=programs)
    app()
