"""Checksums of what passes by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ..errors import ChecksumMismatchError
from ..pipes import Block, in_memory


class Witness:
    """Sees all the bytes of a file pass by, so that nobody has to read them again to know their checksum."""

    def __init__(self, checksum: str) -> None:
        """`checksum` is what they should have, ``<algorithm>:<hex>``."""
        algorithm, _, self._declared = checksum.partition(":")
        self._digest = hashlib.new(algorithm, usedforsecurity=False)

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Pass blocks on."""
        for block in map(in_memory, blocks):
            self._digest.update(block)
            yield block

    def agrees(self) -> bool:
        """Say whether what has passed has the checksum."""
        return self._digest.hexdigest() == self._declared


def verified(blocks: Iterable[Block], checksum: str, what: str) -> Iterator[Block]:
    """Pass blocks on; behind the last, raise ChecksumMismatchError unless they have the checksum that was declared.

    `checksum` is ``<algorithm>:<hex>``, or empty for none; `what` names the blocks in the error.
    """
    return _verified(blocks, checksum, what) if checksum else iter(blocks)


def _verified(blocks: Iterable[Block], checksum: str, what: str) -> Iterator[Block]:
    algorithm, _, declared = checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for block in map(in_memory, blocks):
        digest.update(block)
        yield block
    if digest.hexdigest() != declared:
        raise ChecksumMismatchError(
            f"{what} has {algorithm}:{digest.hexdigest()}, not the declared {checksum}; it was discarded."
        )
