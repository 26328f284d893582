"""Every error that bad input can cause.

    BridgeError
    ├── CheckpointError  (ValueError)   a file, an index or a repo: malformed, unsafe, incomplete
    │   ├── UnknownKeyError  (KeyError) a key that the checkpoint does not hold
    │   └── NoRootError                 a root for a checkpoint whose keys are in no dicts
    ├── RuleError        (ValueError)   a rule whose text is wrong
    ├── PlanError        (ValueError)   keys and leaves do not meet
    └── SaveError        (OSError)      a target that cannot be written

A message has its subject first, then what was expected, what came, and what to do next.
"""

from __future__ import annotations

from typing import Any

from bridge._text import safe


class BridgeError(Exception):
    """The base of every error that bad input can cause.

    ```python
    try:
        bridge.load("nowhere.safetensors", like)
    except bridge.BridgeError as error:
        print(error)
    ```
    """

    def __str__(self) -> str:
        # KeyError would show the repr of its message, OSError would read two arguments as errno and text.
        # Names, versions and values come from strangers' files: this is the one place where all of them are printed.
        return safe("\n".join(str(arg) for arg in self.args))


class CheckpointError(BridgeError, ValueError):
    """A file, an index or a repo that is malformed, unsafe or incomplete; values that cannot be what the plan needs.

    `ckpt["absent"]` raises one that is a `KeyError` too.

    ```python
    try:
        bridge.open("nowhere.safetensors")
    except bridge.CheckpointError as error:
        print(error)
    ```
    """


class UnknownKeyError(CheckpointError, KeyError):
    """A key that the checkpoint does not hold."""


class NoRootError(CheckpointError):
    """A root was named, and the checkpoint is safetensors, which has none."""


class RuleError(BridgeError, ValueError):
    """A rule whose text is wrong. Raised when the rule is made; the message points at the place.

    ```python
    try:
        bridge.Rule("h.{l.weight -> layers.weight")
    except bridge.RuleError as error:
        print(error)
    ```
    """


class PlanError(BridgeError, ValueError):
    """Keys and leaves do not meet. All problems are in one report.

    **Attributes:**

    - `missing`: names of the leaves that no key fills; `name[7]` where one index of a stacked leaf is empty.
    - `unexpected`: keys that no leaf takes.
    - `mismatched`: tuples `(leaf, key, expected, got)`, the last two with `.dtype` and `.shape`.

    ```python
    try:
        bridge.load("model.safetensors", {"scale": jax.ShapeDtypeStruct((3,), "float32")})
    except bridge.PlanError as error:
        assert error.missing == ("scale",)
    ```
    """

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        mismatched: tuple[tuple[str, str, Any, Any], ...] = (),
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.mismatched = mismatched


class SaveError(BridgeError, OSError):
    """A target that cannot be written.

    ```python
    try:
        bridge.save(model, "model.safetensors")
    except bridge.SaveError as error:
        print(error)  # something stands there: overwrite=True
    ```
    """
