"""JAX's coordination service: a few words that the processes of one program leave for each other.

`jax.distributed.initialize` starts it, and process 0 keeps it. JAX shows it to no one in public, so all that is asked
of it stands here. When process 0 dies, JAX itself ends the others.
"""

from __future__ import annotations

from typing import Any

import jax


class UnreachableError(Exception):
    """The service is not there, or does not answer."""


class Coordination:
    """Texts by key, which every process of the program can read and write. Nothing here waits for another process."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @classmethod
    def found(cls) -> Coordination | None:
        """The service of this program; `None` where `jax.distributed` was not initialized."""
        try:
            from jax._src.distributed import global_state
        except ImportError:  # JAX may move it
            return None
        return None if global_state.client is None else cls(global_state.client)

    def put(self, key: str, text: str) -> None:
        """Leave `text` under `key`, in place of what was there. **Raises:** `UnreachableError`."""
        try:
            self.client.key_value_set(key, text, allow_overwrite=True)
        except jax.errors.JaxRuntimeError as error:
            raise UnreachableError(str(error).splitlines()[0]) from error

    def below(self, folder: str) -> dict[str, str]:
        """All texts below `folder`, by the rest of their keys. **Raises:** `UnreachableError`."""
        try:
            found = self.client.key_value_dir_get(f"{folder}/")
        except jax.errors.JaxRuntimeError as error:
            raise UnreachableError(str(error).splitlines()[0]) from error
        return {key[len(folder) + 1 :]: text for key, text in found}

    def remove(self, key: str) -> None:
        """Forget `key` and all that is below it. **Raises:** `UnreachableError`."""
        try:
            self.client.key_value_delete(key)
        except jax.errors.JaxRuntimeError as error:
            raise UnreachableError(str(error).splitlines()[0]) from error
