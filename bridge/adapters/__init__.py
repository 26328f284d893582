"""Adapters: what their tensors change of a base, and the values of the tensors that are changed. Knows numpy; no files,
no rules.

    config = AdapterConfig.of(document, subject="…")                     # the object in adapter_config.json
    changes = peft.changes(names, config, weight=1.0, label="…")  # or pairs.changes, of a file without a config
    steps, problems = meet(changes, own, base, {}, weight=1.0, causal=config.causal)

`steps` maps each key of the base that is changed to its `Step`s in order. A step has a `view` (`bridge.format.view`)
whose parts are the base's tensor, as the steps before have left it, and the adapter's. `told` makes words of problems.

Products are made in tiles that do not depend on the box that is asked for (`product.py`): so a weight that is spread
over devices has the bits of one that is not.
"""

from __future__ import annotations

from bridge.adapters import pairs, peft
from bridge.adapters.config import AdapterConfig
from bridge.adapters.meet import ArrayInfo, BaseTensors, Problem, Step, meet, told

__all__ = ["AdapterConfig", "ArrayInfo", "BaseTensors", "Problem", "Step", "meet", "pairs", "peft", "told"]
