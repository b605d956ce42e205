"""``octavo serve`` whose engines are those of ``scripted_engine``."""

from functools import partial

from octavo.cli import app
from octavo.serving import supervisor
from octavo.serving.children import Programs

if __name__ == "__main__":
    supervisor.run = partial(supervisor.run, programs=Programs(engine="scripted_engine"))
    app()
