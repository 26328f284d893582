"""What reads have in common that take runs of files into scratch, before their values go to their places."""

from __future__ import annotations

from bridge.source.box import FileRun


class SourcedRead:
    """A read of some runs of bytes. `key` is the tensor that messages name, `nbytes` how many bytes are read."""

    __slots__ = ("key", "nbytes", "sources")

    def __init__(self, key: str, sources: tuple[FileRun, ...]) -> None:
        self.key, self.sources = key, sources
        self.nbytes = sum([source.nbytes for source in sources])

    @property
    def file(self) -> str:
        """The file of the first source, by which reads are ordered."""
        return self.sources[0].file

    @property
    def offset(self) -> int:
        """Where the first source starts."""
        return self.sources[0].offset
