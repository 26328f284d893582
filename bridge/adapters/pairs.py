"""kohya's and diffusers' layouts: factors in pairs, with an alpha beside them and no config."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.adapters.change import Change, LowRank
from bridge.adapters.config import AdapterConfig
from bridge.quantized.view import Shape

_DOWN = (
    ".lora_A.weight",
    ".lora_down.weight",
    ".lora.down.weight",
    ".lora_linear_layer.down.weight",
    "_lora.down.weight",
)
_UP = (".lora_B.weight", ".lora_up.weight", ".lora.up.weight", ".lora_linear_layer.up.weight", "_lora.up.weight")
_MAGNITUDE = (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")
_ALPHA = (".alpha", ".network_alpha")
_ROLES = {"down": _DOWN, "up": _UP, "magnitude": _MAGNITUDE, "alpha": _ALPHA}
# Other ways to say a change, which LyCORIS writes under the same names.
_OTHERS = ("hada_", "lokr_", "lora_mid", "oft_", "ia3_", "boft_", "glora_", "full_")
_WHOLE = (".diff", ".diff_b", ".on_input", ".w_norm", ".b_norm")
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_transformer_", "lora_prior_unet_")
_DIFFUSERS = ("unet.", "transformer.", "text_encoder.", "text_encoder_2.", "text_encoder_3.", "prior.")


class ModuleTensors(NamedTuple):
    """The tensors of one module, by role, and what the file calls it."""

    name: str
    keys: Mapping[str, str]

    @property
    def part(self) -> str:
        """Which model of a pipeline it is of: `lora_unet_`, `unet.`, or nothing."""
        return next((prefix for prefix in (*_KOHYA, *_DIFFUSERS) if self.name.startswith(prefix)), "")


def pairs(names: Sequence[str], *, label: str) -> list[ModuleTensors]:
    """The modules of a file without a config.

    **Raises:** `CheckpointError` for what is none of this, by the name of its kind where that is known.
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        module, role = _role(name, label)
        found.setdefault(module, {})[role] = name
    for module, keys in found.items():
        missing = [role for role in ("down", "up") if role not in keys]
        if missing:
            has = next(iter(keys.values()))
            what = f"is the {'alpha' if 'alpha' in keys else 'scale'} of factors that are missing"
            if len(missing) == 1:
                what = f"has no {'second' if missing == ['up'] else 'first'} factor beside it for {quote(module)}"
            _refuse(label, has, what, "Fetch the adapter again: it is damaged")
    return [ModuleTensors(module, keys) for module, keys in found.items()]


def _role(name: str, label: str) -> tuple[str, str]:
    last = name.rpartition(".")[2]
    other = next((kind for kind in _OTHERS if f".{kind}" in f".{name}" and kind in name), None)
    if other is not None or name.endswith(_WHOLE):
        kind = {"hada_": "LoHa", "lokr_": "LoKr", "lora_mid": "LoCon with a core (CP)"}.get(other or "", "LyCORIS")
        _refuse(label, name, f"is of a {kind} adapter, and only LoRA is read", "Merge it with the tool that made it")
    for role, endings in _ROLES.items():
        for ending in endings:
            if name.endswith(ending) and len(name) > len(ending):
                module = name[: -len(ending)]
                # Of attention in older files: the layer behind a processor.
                return (f"{module}.0" if ending.startswith("_") and module.endswith("to_out") else module), role
    _refuse(label, name, f"is not a known tensor of an adapter: {quote(last)}", "Name a file that holds only LoRA")


def alphas(found: Sequence[ModuleTensors]) -> list[str]:
    """The keys whose values decide about scales: one number each."""
    return [pair.keys["alpha"] for pair in found if "alpha" in pair.keys]


def changes(
    found: Sequence[ModuleTensors],
    shapes: Mapping[str, Shape],
    values: Mapping[str, float],
    modules: Collection[str],
    said: Mapping[str, AdapterConfig],
    *,
    weight: float,
) -> Iterator[Change]:
    """What the pairs change.

    **Arguments:**

    - `shapes`: of the adapter's tensors; `values`: of the alphas. Without one alpha is the rank.
    - `modules`: the base's modules. kohya writes `_` for the dots of their names: only they say where dots were.
    - `said`: what the file itself says of a part, in place of alphas.
    - `weight`: what the caller multiplies by.
    """
    flat = {name.replace(".", "_"): name for name in modules}
    for pair in found:
        rank = shapes[pair.keys["down"]][0] if shapes[pair.keys["down"]] else 0
        scale = weight * values[pair.keys["alpha"]] / max(rank, 1) if "alpha" in pair.keys else weight
        module = pair.name.removeprefix(pair.part)
        if pair.part in _KOHYA:
            module = flat.get(module, module)
        else:
            module = _unprocessed(module)
        config = said.get(pair.part)
        if config is not None and "alpha" not in pair.keys:
            scale = config.scale(module, weight)
        stated = None if config is None else config.rank(module)
        yield LowRank(module, pair.keys["down"], pair.keys["up"], scale, stated, pair.keys.get("magnitude"))


def _unprocessed(module: str) -> str:
    """A module's name without what older files put between attention and its layers."""
    return module.replace(".processor.", ".").removesuffix(".processor")


def others_aside(found: Sequence[ModuleTensors], modules: Collection[str]) -> tuple[list[ModuleTensors], list[str]]:
    """Of a file for a whole pipeline the pairs of the base's own part, and which parts the rest is of.

    A part is another model's where none of its modules is in the base, while some of another part are.
    """
    flat = {*modules, *(name.replace(".", "_") for name in modules)}
    met: dict[str, bool] = {}
    for pair in found:
        module = _unprocessed(pair.name.removeprefix(pair.part))
        met[pair.part] = met.get(pair.part, False) or module in flat
    if not any(met.values()):
        return list(found), []
    return [pair for pair in found if met[pair.part]], [part for part, meets in met.items() if not meets]


def _refuse(label: str, name: str, problem: str, advice: str) -> NoReturn:
    raise CheckpointError(quote(label), f": {quote(name)} {problem}", advice)
