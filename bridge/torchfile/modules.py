"""Whole modules, by their attributes: pickled `nn.Module`s and TorchScript. Their code is not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.torchfile.script import Lists
from bridge.torchfile.tokens import Dict, Object, Set
from bridge.torchfile.walk import WalkLimit

_HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks")


def is_module(value: Any) -> bool:
    """Whether an object has what `nn.Module` gives each: dicts of parameters, buffers and modules."""
    state = value.state if isinstance(value, Object) else None
    return isinstance(state, Dict) and all(
        isinstance(state.get(n), Dict) for n in ("_parameters", "_buffers", "_modules")
    )


def module_values(name: str, module: Object, walk: WalkLimit) -> Dict | None:
    """The tensors of an `nn.Module` by the names that `state_dict()` gives them; None for another object.

    Modules that change their state dict by hooks are refused. What a class overrides (`state_dict`,
    `get_extra_state`) cannot be seen: its code is not in the file.
    """

    def own(module: Object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        state = module.state
        if not is_module(module):
            raise CheckpointError(
                quote(name),
                f"has an object of {quote(module.origin)} where a module should be",
                "Save its state_dict() with torch.save",
            )
        for hook in _HOOKS:
            hooks = state.get(hook)
            if isinstance(hooks, Dict) and (hooks or hooks.others):
                raise CheckpointError(
                    quote(name),
                    (
                        f"holds a module {quote(module.origin)} whose state_dict() is changed by hooks, which bridge "
                        "does not run"
                    ),
                    "Save that state_dict() with torch.save",
                )
        passing = state.get("_non_persistent_buffers_set")
        left = [item for item in passing if type(item) is str] if isinstance(passing, Set) else []
        buffers = {key: value for key, value in state["_buffers"].items() if key not in left}
        tensors = {key: value for key, value in {**state["_parameters"], **buffers}.items() if value is not None}
        return tensors, {key: value for key, value in state["_modules"].items() if value is not None}

    return _flattened(module, own, walk) if is_module(module) else None


def script_values(name: str, module: Object, lists: Lists, walk: WalkLimit) -> Dict | None:
    """The same of a TorchScript module; which of its attributes count stands in `lists`, by class."""

    def own(module: Object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        state, names = module.state, lists(module.origin) or []
        if not isinstance(state, Dict) or not all(attribute in state for attribute in names):
            raise CheckpointError(
                quote(name),
                (
                    f"has a TorchScript module {quote(module.origin)} without the attributes that its code lists: "
                    "it is damaged"
                ),
                "Fetch it again",
            )
        tensors = {attribute: state[attribute] for attribute in names if state[attribute] is not None}
        inner = {key: v for key, v in state.items() if isinstance(v, Object) and lists(v.origin) is not None}
        return tensors, inner

    return None if lists(module.origin) is None else _flattened(module, own, walk)


def _flattened(
    module: Object, own: Callable[[Object], tuple[Mapping[str, Any], Mapping[str, Any]]], walk: WalkLimit
) -> Dict:
    """All tensors by their full names: a module's own, then those of its modules, as `state_dict()` orders them."""
    values = Dict()
    waiting: list[tuple[str, int, Object]] = [("", 0, module)]
    while waiting:
        prefix, depth, module = waiting.pop()
        tensors, inner = own(module)
        walk.step(depth, 1 + len(tensors) + len(inner))
        values.update({f"{prefix}{key}": value for key, value in tensors.items()})
        waiting += reversed([(f"{prefix}{key}.", depth + 1, child) for key, child in inner.items()])
    return values
