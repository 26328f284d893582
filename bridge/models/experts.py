"""A mixture of experts: a router sends each token to a few of many MLPs (https://arxiv.org/abs/1701.06538)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.config import Fields
from bridge.models.layers import GatedMLP, accumulation_dtype
from bridge.models.spellings import only_read

__all__ = ["Experts", "fused_rules", "read_experts"]


class Experts(eqx.Module):
    """Experts, which are gated MLPs, and a router that chooses some of them for each token.

    All experts compute every token, and the results of the chosen ones are added. This is more work than needed, but
    `jax.sharding` can split a product with an axis (experts,) over devices: each device computes its own experts, and
    one sum combines the results.

    **Arguments:** (of the constructor)

    - `hidden_size`, `intermediate_size`: the width of a token, and the width inside an expert.
    - `activation`: one of `ACTIVATIONS`.
    - `count`: the number of experts. `chosen`: the number of experts for each token.
    - `normalised`: whether the weights of the chosen experts are scaled to the sum 1; otherwise they are the router's.
    - `key`: a PRNG key for the initial weights.
    """

    router: eqx.nn.Linear
    experts: GatedMLP  # stacked: each array has an axis (experts,) in front
    chosen: int = eqx.field(static=True)
    normalised: bool = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        *,
        count: int,
        chosen: int,
        normalised: bool,
        key: jax.Array,
    ) -> None:
        key_router, key_experts = jax.random.split(key)
        self.router = eqx.nn.Linear(hidden_size, count, use_bias=False, key=key_router)
        self.experts = eqx.filter_vmap(lambda k: GatedMLP(hidden_size, intermediate_size, activation, key=k))(
            jax.random.split(key_experts, count)
        )
        self.chosen, self.normalised = chosen, normalised

    def __call__(self, x: jax.Array) -> jax.Array:
        """From one token `(d,)` to `(d,)`."""
        shares = self.shares(x)
        results = eqx.filter_vmap(lambda expert: expert(x))(self.experts).astype(shares.dtype)
        # What was not chosen is left out, not multiplied by 0: it may be infinite.
        results = jnp.where(shares[:, None] > 0, results, 0)
        return (shares @ results).astype(x.dtype)

    def shares(self, x: jax.Array) -> jax.Array:
        """The weight of each expert for a token, `(d,)` to `(experts,)`: 0 for experts that are not chosen.

        Computed in float32 (or float64), because rounding could change the choice between two nearly equal experts.
        """
        dtype = accumulation_dtype(x.dtype)
        shares = jax.nn.softmax(self.router.weight.astype(dtype) @ x.astype(dtype))
        largest, which = jax.lax.top_k(shares, self.chosen)
        if self.normalised:
            largest = largest / largest.sum()
        return largest @ jax.nn.one_hot(which, shares.shape[0], dtype=dtype)


def read_experts(fields: Fields, *names: str) -> dict[str, Any]:
    """Read the number of experts, from whichever of the fields `names` a file has, and the number for each token."""
    name, *others = [name for name in names if fields.has(name)] or names
    count, chosen = fields.count(name), fields.count("num_experts_per_tok")
    for other in others:
        fields.one_of(other, [count], default=count)
    if chosen > count:
        fields.refuse("num_experts_per_tok", chosen, f"at most {count}, the number of experts")
    return {"num_local_experts": count, "num_experts_per_tok": chosen}


def fused_rules(prefix: str, mlp: str = "layers.mlp") -> list[str]:
    """The rules for experts as transformers 5 has them in memory: `prefix` begins their keys, `mlp` is their module."""
    fused = [
        f"{prefix}.experts.gate_up_proj [e (gate|up) m] -> {mlp}.experts.{{gate|up}}.weight [e _ m]",
        f"{prefix}.experts.down_proj -> {mlp}.experts.down.weight",
    ]
    return only_read(fused)
