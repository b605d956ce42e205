"""``octavo serve`` whose front ends are those of ``fragile_frontend``."""

from functools import partial

from octavo.cli import app
from octavo.serving import supervisor
from octavo.serving.children import Programs

if __name__ == "__main__":
    supervisor.run = partial(supervisor.run, programs=Programs(front_end="fragile_frontend"))
    app()
