"""A Hugging Face hub on this machine with one repository: the files of a folder."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "0" * 40


@contextlib.contextmanager
def fake_hub(folder: Path, repo_id: str) -> Iterator[str]:
    """The address of a hub that has ``folder`` as ``repo_id``, until the block ends."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{repo_id}/tree/"):
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
                    for file in sorted(folder.iterdir())
                ]
                self._send(json.dumps(tree).encode(), body)
            elif path.startswith(f"/api/models/{repo_id}"):
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                self._send(json.dumps({"id": repo_id, "sha": COMMIT, "siblings": files}).encode(), body)
            elif path.startswith(f"/{repo_id}/resolve/") and (file := folder / Path(path).name).is_file():
                self._send(file.read_bytes(), body)
            else:
                self.send_error(404)

        def _send(self, data: bytes, body: bool) -> None:
            self.send_response(200)
            headers = {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nobody wants to know."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
