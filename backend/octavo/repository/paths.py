"""Names and paths that must not lead out of where they belong. Knows the file system and nothing of models."""

from pathlib import Path

from octavo.errors import LoadFailed

MAX_NAME_BYTES = 255


def is_model_name(name: str) -> bool:
    """Whether ``name`` can be the name of a folder in a repository: one visible component of a path, and nothing more."""
    if not name or name.startswith(".") or any(character in "/\\" or not character.isprintable() for character in name):
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def inside(root: Path, path: Path, what: str) -> Path:
    """``path`` with its links resolved, if it exists and lies in ``root``. Raises ``LoadFailed`` that calls it ``what``."""
    try:
        real = path.resolve(strict=True)
        base = root.resolve(strict=True)
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
