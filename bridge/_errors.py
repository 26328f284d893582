"""Every error that bad input can cause.

    BridgeError
    ├── CheckpointError  (ValueError)   a file, an index or a repo: malformed, unsafe, incomplete
    │   ├── UnknownKeyError  (KeyError) a key that the checkpoint does not hold
    │   └── NoRootError                 a root for a checkpoint whose keys are in no dicts
    ├── RuleError        (ValueError)   a rule whose text is wrong
    ├── PlanError        (ValueError)   keys and leaves do not meet
    └── SaveError        (OSError)      a target that cannot be written

An error is three texts: its subject (a file, a key, a leaf, an argument), what is wrong with it, and one piece of
advice. What `str` shows is made of them: `'x.safetensors' does not exist. Check its name.` Where an error is met on the
way through something larger, the outer error takes over its `statement`, and gives one advice: its own, or that one.
"""

from __future__ import annotations

from typing import Any

from bridge._text import safe, sentences


class BridgeError(Exception):
    """The base of every error that bad input can cause.

    **Attributes:**

    - `subject`: the file, key, leaf or argument at fault, such as `"'x.safetensors'"`.
    - `problem`: what is wrong with the subject, such as `"does not exist"`.
    - `advice`: what to do, a sentence without its full stop; `None` if `problem` is a report that contains advice.

    ```python
    try:
        bridge.load("nowhere.safetensors", like)
    except bridge.BridgeError as error:
        print(error)
        print(error.advice)
    ```
    """

    def __init__(self, subject: str, problem: str, advice: str | None = None) -> None:
        """**Arguments:** as the attributes; a problem that is a sentence of its own begins with a colon."""
        # OSError, which SaveError is, would read its arguments as errno and text: it does not get them.
        Exception.__init__(self, subject, problem, advice)

    # Names, versions and values come from strangers' files: this is the one place where all of them are made printable.

    @property
    def subject(self) -> str:
        return safe(self.args[0])

    @property
    def problem(self) -> str:
        return safe(self.args[1]).removeprefix(":").lstrip()

    @property
    def advice(self) -> str | None:
        return None if self.args[2] is None else safe(self.args[2])

    @property
    def statement(self) -> str:
        """Subject and problem: what an outer error says of this one, whose advice it replaces or takes over."""
        joint = ": " if self.args[1].startswith(":") else " "
        return f"{self.subject}{joint}{self.problem}"

    def __str__(self) -> str:
        return sentences(self.statement, self.advice)


class CheckpointError(BridgeError, ValueError):
    """A file, an index or a repo that is malformed, unsafe or incomplete; or values that a leaf cannot hold.

    `ckpt["absent"]` raises a `CheckpointError` that is also a `KeyError`.

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

    **Attributes:** those of `BridgeError`, and

    - `place`: which of several rules it is, as in `"rule 2, line 1"`; empty for one that stands alone.
    - `excerpt`: the rule's text, and a line beneath that points at the column; empty where there is no text.

    ```python
    try:
        bridge.Rule("h.{l.weight -> layers.weight")
    except bridge.RuleError as error:
        print(error)
    ```
    """

    def __init__(
        self, subject: str, problem: str, advice: str | None = None, *, place: str = "", excerpt: str = ""
    ) -> None:
        super().__init__(subject, problem, advice)
        self.place = place
        self.excerpt = excerpt

    def at(self, place: str, further: str = "") -> RuleError:
        """The same error of a rule that stands at `place`; `further` goes below its excerpt."""
        places = ", ".join(filter(None, (place, self.place)))
        return RuleError(*self.args, place=places, excerpt=self.excerpt + further)

    def __str__(self) -> str:
        # The excerpt shows the subject.
        shown = sentences(self.problem if self.excerpt else self.statement, self.advice)
        return (f"{self.place}: " if self.place else "") + shown + safe(self.excerpt)


class PlanError(BridgeError, ValueError):
    """Keys and leaves do not meet. All problems are in one report.

    **Attributes:** those of `BridgeError`, and

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
        subject: str,
        problem: str,
        advice: str | None = None,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        mismatched: tuple[tuple[str, str, Any, Any], ...] = (),
    ) -> None:
        super().__init__(subject, problem, advice)
        self.missing = missing
        self.unexpected = unexpected
        self.mismatched = mismatched

    @property
    def statement(self) -> str:
        # A report of many problems, in lines of its own, says in its first line what it is about.
        return self.problem if "\n" in self.problem and self.advice is None else super().statement


class SaveError(BridgeError, OSError):
    """A target that cannot be written.

    ```python
    try:
        bridge.save(model, "model.safetensors")
    except bridge.SaveError as error:
        print(error)  # something stands there: overwrite=True
    ```
    """
