"""Files that lie beside a checkpoint's weights: config.json, tokenizer.json."""

from __future__ import annotations

import argparse
import os

import bridge
from bridge._text import printable, quote


def beside(ckpt: bridge.Checkpoint, name: str, arguments: argparse.Namespace) -> str:
    """The path of a file in the folder, or in the Hub repo, that `ckpt` was opened from.

    **Raises:** `CheckpointError` where there is none.
    """
    source, subfolder = arguments.source, arguments.subfolder or ""
    if ckpt.commit is None or os.path.exists(source):
        path = os.path.join(source if os.path.isdir(source) else os.path.dirname(source), subfolder, name)
        if not os.path.isfile(path):
            raise bridge.CheckpointError(f"{quote(path)} is not there. Name a folder that holds model and {name}.")
        return path
    return _fetched(source, f"{subfolder.strip('/')}/{name}".lstrip("/"), ckpt.commit, arguments)


def _fetched(repo: str, path: str, commit: str, arguments: argparse.Namespace) -> str:
    import huggingface_hub
    from huggingface_hub import errors

    # Its base is the HTTP library's own error, which a connection that breaks raises.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        return huggingface_hub.hf_hub_download(
            repo,
            path,
            revision=commit,
            cache_dir=arguments.cache_dir,
            token=arguments.token,
            local_files_only=arguments.local_files_only,
        )
    except (errors.EntryNotFoundError, transport, OSError) as e:
        reason = printable(str(e).strip().split("\n")[0])
        raise bridge.CheckpointError(f"Hub repo {quote(repo)}: {quote(path)} cannot be had: {reason}") from e
