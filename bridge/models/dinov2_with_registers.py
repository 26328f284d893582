"""DINOv2 with registers: tokens behind the class token that stand for no patch (https://arxiv.org/abs/2309.16588).

model = bridge.models.from_pretrained("facebook/dinov2-with-registers-base")
hidden = model(image)  # (c, h, w) -> (1 + registers + patches, d); a batch by jax.vmap
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.models import dinov2
from bridge.models.config import Fields
from bridge.models.dinov2 import parts_of as parts_of
from bridge.models.dinov2 import rules as rules


@dataclass(frozen=True)
class Config(dinov2.Config):
    """The fields of `dinov2.Config`, and `num_register_tokens`: how many there are."""

    model_types = ("dinov2_with_registers",)
    antialias: ClassVar[bool] = True

    patch_size: tuple[int, int] = (16, 16)
    num_register_tokens: int = 4

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        registers = fields.whole("num_register_tokens", default=cls.num_register_tokens)
        return super().read(fields) | {"num_register_tokens": registers}


class Dinov2WithRegisters(dinov2.Dinov2):
    """The encoder: `dinov2.Dinov2`."""

    __init__ = dinov2.Dinov2.__init__
