"""ConvNeXt V2: ConvNeXt with a global response norm in its MLPs, and no scales (https://arxiv.org/abs/2301.00808).

model = bridge.models.from_pretrained("facebook/convnextv2-tiny-22k-224")
hidden = model(image)  # (c, h, w) -> (c', h', w'); a batch by jax.vmap
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.models import convnext
from bridge.models.config import Fields
from bridge.models.convnext import parts_of as parts_of
from bridge.models.convnext import rules as rules


@dataclass(frozen=True)
class Config(convnext.Config):
    """The fields of `convnext.Config`."""

    model_types = ("convnextv2",)
    responsive: ClassVar[bool] = True

    @classmethod
    def read_scaled(cls, fields: Fields) -> dict[str, Any]:
        """No block has scales."""
        return {"scaled": False}


class ConvNextV2(convnext.ConvNext):
    """The encoder: `convnext.ConvNext`."""

    __init__ = convnext.ConvNext.__init__
