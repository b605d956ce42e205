"""Names and paths that must not lead out of where they belong. Knows the file system and nothing of models."""

import errno
import os
from pathlib import Path

from octavo.errors import LoadFailed

MAX_NAME_BYTES = 255
_MOST_LINKS = 40


def is_model_name(name: str) -> bool:
    """Whether ``name`` can be the name of a folder in a repository: one visible component of a path, and nothing more."""
    if not name or name.startswith(".") or any(character in "/\\" or not character.isprintable() for character in name):
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def real_path(path: Path) -> Path:
    """``path`` with its links resolved, where it lies for us. Raises ``OSError`` if it leads nowhere.

    A link of ``/proc`` to a process's root leads where its text does not say, and stays: so KServe links an image that holds a
    model, ``/mnt/models -> /proc/7/root/models``.
    """
    real, left, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    while left:
        part = left.pop()
        if part == "..":
            real.stat()
            real = real.parent
            continue
        real /= part
        if not real.is_symlink() or _is_another_root(real):
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink(real))
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        real = Path("/") if target.is_absolute() else real.parent
    real.stat()
    return real


def _is_another_root(link: Path) -> bool:
    return len(link.parts) == 4 and link.parts[1] == "proc" and link.parts[2].isdigit() and link.name == "root"


def inside(root: Path, path: Path, what: str) -> Path:
    """``path`` with its links resolved, if it exists and lies in ``root``. Raises ``LoadFailed`` that calls it ``what``."""
    try:
        real, base = real_path(path), real_path(root)
    except (OSError, RuntimeError, ValueError):
        raise LoadFailed(f"{what} does not exist or cannot be read.") from None
    if not real.is_relative_to(base):
        raise LoadFailed(f"{what} lies outside the folder that it belongs to.")
    return real


def can_reach(path: Path) -> bool:
    """Whether there is something at ``path`` that may be looked at; a name that no file system takes leads nowhere."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file. Raises ``LoadFailed`` that calls it ``what``."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LoadFailed(f"{what} is not UTF-8 text.") from None
    except OSError:
        raise LoadFailed(f"{what} cannot be read.") from None
