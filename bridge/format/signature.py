"""What a file is that is called `.safetensors` and is none: said by its first bytes."""

from __future__ import annotations

_TEXT = 16  # printable characters that no header's length and no magic number of a format begin with

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "Run `git lfs pull` in its repository"),
    (b"GGUF", "a GGUF file, not safetensors", "Use the safetensors files of the same model"),
    (b"\x89HDF", "an HDF5 file, not safetensors", "Use the safetensors files of the same model"),
    (b"\x1f\x8b", "compressed by gzip, not safetensors", "Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd, not safetensors", "Unpack it first"),
    (b"\x93NUMPY", "a numpy .npy file, not safetensors", "Save it with safetensors.numpy.save_file"),
)


def describe(start: bytes) -> tuple[str, str] | None:
    """What the file is that begins with `start`, `a web page, not …`, and what to do. None if it does not show."""
    for signature, *texts in _SIGNATURES:
        if start.startswith(signature):
            return texts[0], texts[1]
    stripped = start[:512].lstrip().lower()
    if stripped.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not safetensors: a login or an error was saved in its place", "Fetch the file itself"
    if stripped.startswith((b"{", b"[")):
        return "JSON text, not safetensors: an index or an error was saved in its place", "Fetch the file itself"
    if len(start) > 8 and not any(start):
        return "nothing but zeros at its start: its download did not finish", "Fetch it again"
    line = start[:512].strip().partition(b"\n")[0].partition(b"\0")[0]
    if len(line) >= _TEXT and line.isascii() and line.decode("ascii").isprintable():
        # What it says is not told: a link may lead to somebody's secrets.
        what = "plain text, not safetensors: an error was saved in its place"
        return what, "Fetch the file itself"
    return None
