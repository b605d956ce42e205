"""``octavo serve`` whose children host the test models: the command line is Octavo's own."""

from functools import partial

from octavo.cli import app
from octavo.serving import supervisor
from octavo.serving.children import Programs

HOSTED = Programs(front_end="conformance.hosted_frontend", engine="conformance.hosted_engine")

if __name__ == "__main__":
    supervisor.run = partial(supervisor.run, programs=HOSTED)
    app()
