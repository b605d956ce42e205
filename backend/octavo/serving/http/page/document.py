"""``read_document``: the page's files as the one document that they make, and the policy that a browser holds it to."""

import base64
import hashlib
import re
from importlib.resources import files

_INLINE = re.compile(rb"<(style|script)>([\w.]+)</\1>")


def read_document() -> tuple[bytes, str]:
    """The page with its style and scripts in their places, and its Content-Security-Policy.

    By the policy nothing runs but these scripts, and nothing is asked of anybody but the server that the page came from.
    """
    folder = files(__package__)
    hashes: dict[bytes, list[str]] = {b"style": [], b"script": []}

    def place(found: re.Match[bytes]) -> bytes:
        kind, name = found.groups()
        text = b"\n" + folder.joinpath(name.decode()).read_bytes()
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
        return b"<%b>%b</%b>" % (kind, text, kind)

    html = _INLINE.sub(place, folder.joinpath("page.html").read_bytes())
    rules = {
        "default-src": "'none'",
        "style-src": " ".join(hashes[b"style"]),
        "script-src": " ".join(hashes[b"script"]),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{name} {value}" for name, value in rules.items())
