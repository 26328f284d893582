"""Are the files what they should be? Their sha256 against what the Hub's cache or a sidecar says."""

from __future__ import annotations

import hashlib
import re

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource
from bridge.source.folder import Folder

_PIECE_NBYTES = 4 << 20
_MAX_SIDECAR_NBYTES = 4096


def verify_file(folder: Folder, name: str, source: ByteSource) -> None:
    """Read all of `source` and compare its sha256 with what is known of it.

    What is known: the name of its blob in the Hub's cache, else a file `<name>.sha256` beside it, as sha256sum writes.
    `CheckpointError` if they differ, and if nothing is known.
    """
    expected = folder.sha256(name) or _sidecar(folder, name)
    if expected is None:
        raise CheckpointError(
            quote(source.name),
            (
                "has nothing to be checked against: it is not in the Hub's cache, and there is no "
                f"{quote(name + '.sha256')} beside it"
            ),
            "Write one with sha256sum, or leave `verify` out",
        )
    got = _sha256(source)
    if got != expected:
        raise CheckpointError(
            quote(source.name), f"is not the file it should be: sha256 {got}, expected {expected}", "Fetch it again"
        )


def _sha256(source: ByteSource) -> str:
    digest = hashlib.sha256()
    piece = memoryview(bytearray(min(_PIECE_NBYTES, source.nbytes)))
    for start in range(0, source.nbytes, _PIECE_NBYTES):
        part = piece[: source.nbytes - start]
        source.readinto([part], start)
        digest.update(part)
    return digest.hexdigest()


def _sidecar(folder: Folder, name: str) -> str | None:
    if not folder.has(name + ".sha256"):
        return None
    sidecar = folder.open(name + ".sha256")
    try:
        text = bytearray(min(sidecar.nbytes, _MAX_SIDECAR_NBYTES))
        sidecar.readinto([memoryview(text)], 0)
    finally:
        sidecar.close()
    match = re.match(rb"\\?([0-9A-Fa-f]{64})\b", bytes(text))
    if match is None:
        raise CheckpointError(quote(sidecar.name), "does not begin with a sha256 of 64 hex digits", "Write it anew")
    return match[1].decode().lower()
