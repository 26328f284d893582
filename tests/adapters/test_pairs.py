"""kohya's and diffusers' files: factors in pairs, an alpha beside them, and no config."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge

RNG = np.random.default_rng(0)
TO_Q, TO_OUT, CONV = (
    "mid_block.attentions.0.attn1.to_q",
    "mid_block.attentions.0.attn1.to_out.0",
    "down_blocks.1.conv_in",
)
SHAPES = {TO_Q: (6, 5), TO_OUT: (5, 6), CONV: (4, 3, 3, 3)}


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unet") / "model.safetensors"
    save_file({f"{module}.weight": floats(*shape) for module, shape in SHAPES.items()}, path)
    return path


def factors(module: str, rank: int = 2) -> tuple[np.ndarray, np.ndarray]:
    shape = SHAPES[module]
    return floats(rank, *shape[1:]), floats(shape[0], rank, *(1 for _ in shape[2:]))


def check(unet: Path, tensors: dict[str, np.ndarray], pairs: dict[str, tuple[np.ndarray, np.ndarray, float]]) -> None:
    """The merged weights are the formula's, all others are as they were."""
    lora = unet.parent / "lora.safetensors"
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, lora)
    plain, merged = bridge.load(unet), bridge.load(unet, adapters=[lora])
    for module in SHAPES:
        expected = np.asarray(plain[f"{module}.weight"]).astype(np.float64)
        if module in pairs:
            a, b, scale = pairs[module]
            product = b.reshape(len(b), -1).astype(np.float64) @ a.reshape(len(a), -1)
            expected = expected + scale * product.reshape(expected.shape)
        np.testing.assert_allclose(np.asarray(merged[f"{module}.weight"]), expected, rtol=0, atol=1e-5)


def test_kohyas_names_are_made_from_the_bases(unet: Path) -> None:
    tensors, pairs = {}, {}
    for module, alpha in ((TO_Q, 1.0), (TO_OUT, None), (CONV, 3.0)):
        a, b = factors(module)
        stem = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = np.float32(alpha)
        pairs[module] = (a, b, 1.0 if alpha is None else alpha / 2)
    check(unet, tensors, pairs)


def test_factors_of_linear_layers_with_four_axes(unet: Path) -> None:
    a, b = factors(TO_Q)
    stem = f"lora_unet_{TO_Q.replace('.', '_')}"
    tensors = {f"{stem}.lora_down.weight": a[:, :, None, None], f"{stem}.lora_up.weight": b[:, :, None, None]}
    check(unet, tensors, {TO_Q: (a, b, 1.0)})


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("lora_A.weight", "lora_B.weight"), "unet."),
        (("lora.down.weight", "lora.up.weight"), "unet."),
        (("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), "transformer."),
        (("lora_A.weight", "lora_B.weight"), ""),
    ],
)
def test_diffusers_names(names: tuple[str, str], part: str, unet: Path) -> None:
    a, b = factors(TO_Q)
    check(unet, {f"{part}{TO_Q}.{name}": value for name, value in zip(names, (a, b), strict=True)}, {TO_Q: (a, b, 1.0)})


def test_diffusers_older_names(unet: Path) -> None:
    (a, b), (c, d) = factors(TO_Q), factors(TO_OUT)
    stem = "unet.mid_block.attentions.0.attn1.processor."
    tensors = {f"{stem}to_q_lora.down.weight": a, f"{stem}to_q_lora.up.weight": b}
    tensors |= {f"{stem}to_out_lora.down.weight": c, f"{stem}to_out_lora.up.weight": d}
    check(unet, tensors, {TO_Q: (a, b, 1.0), TO_OUT: (c, d, 1.0)})


def test_diffusers_metadata_says_rank_and_alpha(unet: Path) -> None:
    a, b = factors(TO_Q)
    lora = unet.parent / "said.safetensors"
    said = {"unet.r": 2, "unet.lora_alpha": 6, "unet.use_rslora": False, "unet.target_modules": ["to_q"]}
    tensors = {f"unet.{TO_Q}.lora_A.weight": a, f"unet.{TO_Q}.lora_B.weight": b}
    save_file(tensors, lora, {"lora_adapter_metadata": json.dumps(said)})
    assert bridge.plan(unet, adapters=lora).merged == {f"{TO_Q}.weight": ("+= 3.0 · B @ A (r=2)",)}
    save_file(tensors, lora, {"lora_adapter_metadata": json.dumps(said | {"unet.new_kind": True})})
    with pytest.raises(bridge.CheckpointError, match="new_kind 'True' is not known"):
        bridge.plan(unet, adapters=lora)


def test_magnitudes_of_rows(unet: Path) -> None:
    a, b = factors(TO_Q)
    m = np.abs(floats(6, 1)) + 1
    stem, lora = f"lora_unet_{TO_Q.replace('.', '_')}", unet.parent / "dora.safetensors"
    save_file({f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b, f"{stem}.dora_scale": m}, lora)
    total = np.asarray(bridge.load(unet)[f"{TO_Q}.weight"]) + b @ a
    expected = total * (m / np.linalg.norm(total, axis=1, keepdims=True))
    np.testing.assert_allclose(np.asarray(bridge.load(unet, adapters=lora)[f"{TO_Q}.weight"]), expected, rtol=1e-5)
    save_file({f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b, f"{stem}.dora_scale": m[:5].T.copy()}, lora)
    (conflict,) = bridge.plan(unet, adapters=lora).problems.conflicts
    assert conflict.text.endswith("there are 5 magnitudes for 6 rows")


def test_what_is_of_another_model_of_the_pipeline_is_told(unet: Path) -> None:
    a, b = factors(TO_Q)
    flat, lora = TO_Q.replace(".", "_"), unet.parent / "pipeline.safetensors"
    tensors = {
        f"{part}{name}.lora_{side}.weight": value
        for part, name in (("lora_unet_", flat), ("lora_te_", "text_q"))
        for side, value in (("down", a), ("up", b))
    }
    save_file(tensors, lora)
    plan = bridge.plan(unet, adapters=lora)
    assert plan.ok
    assert plan.warnings == (f"'{lora}' has 1 module of 'lora_te_', another model",)
    assert f"warning: '{lora}' has 1 module of 'lora_te_', another model" in str(plan)


def test_what_no_module_of_the_base_is_called(unet: Path) -> None:
    a, b = factors(TO_Q)
    lora = unet.parent / "other.safetensors"
    save_file({"lora_unet_z_q.lora_down.weight": a, "lora_unet_z_q.lora_up.weight": b}, lora)
    (conflict,) = bridge.plan(unet, adapters=lora).problems.conflicts
    assert (
        conflict.text
        == f"of adapter '{lora}', for 'z_q.weight': the base has no such key: the adapter may be of another base"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_unet_x.hada_w1_a", "is of a LoHa adapter"),
        ("lora_unet_x.lokr_w1", "is of a LoKr adapter"),
        ("lora_unet_x.lora_mid.weight", "is of a LoCon with a core (CP) adapter"),
        ("lora_unet_x.diff", "is of a LyCORIS adapter"),
        ("lora_unet_x.oft_blocks", "is of a LyCORIS adapter"),
        ("lora_unet_x.alpha", "is the alpha of factors that are missing"),
        ("lora_unet_x.lora_up.weight", "has no first factor beside it for 'lora_unet_x'"),
        ("model.weight", "is not a known tensor of an adapter: 'weight'"),
    ],
)
def test_refused_by_name(name: str, said: str, unet: Path) -> None:
    lora = unet.parent / "refused.safetensors"
    save_file({name: np.ones((1, 1), "f4")}, lora)
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.plan(unet, adapters=lora)
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_an_alpha_that_is_no_number(unet: Path) -> None:
    a, b = factors(TO_Q)
    stem, lora = f"lora_unet_{TO_Q.replace('.', '_')}", unet.parent / "alpha.safetensors"
    for alpha, said in ((np.ones(2, "f4"), r"has shape \(2,\)"), (np.array(np.nan, "f4"), "is nan")):
        save_file({f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b, f"{stem}.alpha": alpha}, lora)
        with pytest.raises(bridge.CheckpointError, match=f"{said}, expected one finite number"):
            bridge.plan(unet, adapters=lora)
