"""New processes: what a first load takes, from the start of Python on."""

from __future__ import annotations

from bench.rows import Bound, Row

_PUT = "jax.block_until_ready(jax.device_put(numpy.zeros((64,), numpy.float32)))"
_FIRST = """\
import jax, bridge
%slike = {"norm": {"weight": jax.ShapeDtypeStruct((64,), "bfloat16")}}
jax.block_until_ready(bridge.load(FOLDER, like, ["model.norm.** -> norm.**"], allow_unexpected=["**"]))"""

START = Row(
    "start",
    "New processes, from their start until their code is done",
    ("numpy", "bridge", "names", "jax", "first", "jax_equinox", "first_equinox"),
    (
        Bound("bridge", ((1.0, ("numpy",)),), plus=0.060),
        Bound("names", ((1.0, ("numpy",)),), plus=0.060),
        Bound("first", ((1.0, ("jax",)),), plus=0.030),
        Bound("first_equinox", ((1.0, ("jax_equinox",)),), plus=0.030),
    ),
    code={
        "numpy": ("limit: `import numpy`", "import numpy"),
        "bridge": ("**`import bridge`**", "import bridge"),
        "names": (
            "**`import bridge`**, then `bridge.load` and `bridge.open` looked up",
            "import bridge; bridge.load, bridge.open",
        ),
        "jax": ("limit: `import jax` and its first `device_put`", f"import jax, numpy; {_PUT}"),
        "jax_equinox": (
            "limit: `import jax`, `import equinox` and the first `device_put`",
            f"import jax, numpy, equinox; {_PUT}",
        ),
        "first": ("**first `bridge.load`** of a tiny file into a dict", _FIRST % ""),
        "first_equinox": (
            "**first `bridge.load`** of a tiny file where Equinox is imported",
            _FIRST % "import equinox\n",
        ),
    },
    ours="",  # programs that do different things: differences tell, ratios do not
    large=False,
)
