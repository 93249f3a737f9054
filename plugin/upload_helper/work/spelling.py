"""Members that mean nothing, but look like one that does: said in the log, for whoever wrote them waits in vain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ..errors import shown

_ALIKE = 0.75

_log = logging.getLogger(__name__)


def warn_of_misspelt(given: Iterable[object], known: Sequence[str], what: str) -> None:
    """Log which of the names that `what` was given were probably meant as one of those that it knows."""
    names = {name.lower(): name for name in known}
    for name in given:
        near = get_close_matches(str(name)[:100].lower(), names, n=1, cutoff=_ALIKE)
        if name not in known and near:
            _log.warning("%s has a member %s, which means nothing; %r is known.", what, shown(name), names[near[0]])
