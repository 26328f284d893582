"""How a repo on the Hub is asked for."""

from __future__ import annotations


class HubOptions:
    """How to ask the Hub; the names and meanings are huggingface_hub's."""

    __slots__ = ("cache_dir", "local_files_only", "revision", "token")

    def __init__(
        self,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.revision = revision
        self.token = token
        self.cache_dir = cache_dir
        self.local_files_only = local_files_only

    def at(self, revision: str | None) -> HubOptions:
        """The same for another revision."""
        return HubOptions(revision, self.token, self.cache_dir, self.local_files_only)
