"""``octavo serve`` whose children host the test models: the command line is Octavo's own."""

from octavo.cli import app
from octavo.serving.children import Child

HOSTED = {"octavo.serving.frontend": "conformance.hosted_frontend", "octavo.engine.process": "conformance.hosted_engine"}
spawn = Child.spawn


async def _spawn_hosted(name: str, module: str, setup: bytes) -> Child:
    return await spawn(name, HOSTED[module], setup)


if __name__ == "__main__":
    Child.spawn = _spawn_hosted
    app()
