"""Models of images that are asked for what they do not have, or given what they do not take."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from tests.errors.models import abstract
from tests.errors.situations import situation


@situation("models: ResNet without a head")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("resnet", "ResNet").logits(jnp.zeros((8, 1, 1)))


@situation("models: ViT without a pooler")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("vit", "ViT", pooler=False).pooled(jnp.zeros((5, 24)))


@situation("models: ViT without a head")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("vit", "ViT").logits(jnp.zeros((5, 24)))


@situation("models: ViT and an image of another shape")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("vit", "ViT")(jnp.zeros((8, 8, 3)))
