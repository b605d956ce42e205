"""Which versions of a model are served: the numeric folders and the version policy. Knows nothing of what is in them."""

import logging
import re
from collections.abc import Iterable

from octavo.wire import mc

log = logging.getLogger(__name__)

_VERSION = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_LARGEST = 2**63 - 1


def version_of(folder_name: str) -> int | None:
    """The version that a folder of this name holds; None if it is not a number from 1 without a leading zero."""
    if not _VERSION.fullmatch(folder_name) or int(folder_name) > _LARGEST:
        return None
    return int(folder_name)


def served_versions(present: Iterable[int], policy: mc.ModelVersionPolicy, model: str) -> list[int]:
    """Those of ``present`` that ``policy`` serves, ascending. No policy, or latest 0, is the latest one.

    A specific version that is not present is logged and left out, as Triton does.
    """
    versions = sorted(present)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return versions
    if choice == "specific":
        for version in sorted(set(policy.specific.versions) - set(versions)):
            log.warning("Version %d of model '%s' is named by its version policy and not present.", version, model)
        return [version for version in versions if version in policy.specific.versions]
    return versions[-(policy.latest.num_versions or 1) :]
