"""ResNet: both kinds of blocks, strides where the config wants them, transformers' names and torchvision's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge
import bridge.models
from bridge.models.convolution import FrozenBatchNorm
from bridge.models.resnet import TORCHVISION, Config, ResNet, rules, torchvision_rules
from tests.errors.promised import text_of
from tests.models.contract import Case, compiled
from tests.models.conv_contract import ConvContract

ODD: dict[str, Any] = {
    "embedding_size": 6,
    "hidden_sizes": [8, 12],
    "depths": [1, 3],
    "layer_type": "basic",
}


class ResNetContract(ConvContract):
    """With statistics that say something, and no negative variance."""

    model_type = "resnet"
    computed = ("num_batches_tracked",)

    @classmethod
    def saved(cls, folder: Path, kind: str | None = None, **fields: Any) -> Any:
        import torch

        model = super().saved(folder, kind, **fields)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                torch.nn.init.normal_(module.running_mean, std=0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
                torch.nn.init.normal_(module.weight, 0.5, 0.2)
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        model.save_pretrained(folder)
        return model


@pytest.mark.torch
class TestResNet(ResNetContract):
    kind = "ResNetModel"
    variants = {"basic": ODD}
    refused = {"hidden_act": "swish", "layer_type": "wide", "depths": [1, 2, 3], "hidden_sizes": 8}


@pytest.mark.torch
class TestResNetForImageClassification(ResNetContract):
    kind = "ResNetForImageClassification"
    variants = {
        "bottleneck, its first convolution strides, all stages halve": ODD
        | {
            "layer_type": "bottleneck",
            "downsample_in_bottleneck": True,
            "downsample_in_first_stage": True,
            "num_labels": 5,
            "num_channels": 1,
            "hidden_act": "silu",
        },
    }
    refused = {"hidden_sizes": [3, 12]}

    def test_saved_by_rules_the_keys_are_the_hubs(self, first: Case, tmp_path: Path):
        bridge.save(first.ours, tmp_path, rules(first.ours.config))
        hub, found = (load_file(folder / "model.safetensors").keys() for folder in (first.folder, tmp_path))
        assert found == {key for key in hub if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def torchvisions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Config, Path]:
    """A ResNet with torchvision's names that was trained a little, its config, and its file."""
    import torch
    from safetensors.torch import save_file

    config = dataclasses.replace(
        TORCHVISION["resnet50"], embedding_size=8, hidden_sizes=(8, 16), depths=(2, 3), labels=("a", "b", "c")
    )
    torch.manual_seed(0)
    model = torch_resnet(config)
    with torch.no_grad():
        for _ in range(2):  # running statistics that say something
            model(2 * torch.randn(4, 3, 32, 32) + 1)
    path = tmp_path_factory.mktemp("torchvision") / "model.safetensors"
    save_file(model.eval().state_dict(), path)
    return model, config, path


def torch_resnet(config: Config) -> Any:
    """A small ResNet of bottlenecks as torchvision names it."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, i: int, o: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o // 4, 1, bias=False), nn.BatchNorm2d(o // 4)
            self.conv2, self.bn2 = nn.Conv2d(o // 4, o // 4, 3, stride, 1, bias=False), nn.BatchNorm2d(o // 4)
            self.conv3, self.bn3 = nn.Conv2d(o // 4, o, 1, bias=False), nn.BatchNorm2d(o)
            self.downsample = (
                nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
                if stride > 1 or i != o
                else None
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, config.embedding_size, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
            i, self.stages = config.embedding_size, []
            for s, (o, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
                blocks = [Bottleneck(o if b else i, o, 2 if s and not b else 1) for b in range(depth)]
                setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
                i = o
            self.fc = nn.Linear(i, len(config.labels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for s in range(len(config.depths)):
                x = getattr(self, f"layer{s + 1}")(x)
            return self.fc(x.mean((2, 3)))

    return Model()


@pytest.mark.torch
class TestTorchvision:
    def test_its_names_load_and_give_what_it_computes(self, torchvisions: tuple[Any, Config, Path]):
        import torch

        theirs, config, path = torchvisions
        like = eqx.filter_eval_shape(ResNet, config, key=jax.random.key(0))
        ours = bridge.load(path, like, torchvision_rules(config))
        image = np.random.default_rng(0).standard_normal((3, 37, 30)).astype(np.float32)
        with torch.no_grad():
            expected = theirs(torch.tensor(image)[None])[0].numpy()
        found = compiled(lambda model, image: model.logits(model(image)), ours, image)
        assert np.abs(np.asarray(found) - expected).max() < 1e-5

    @pytest.mark.parametrize("by_plan", [True, False])
    def test_saved_back_strict_loading_takes_it(
        self, torchvisions: tuple[Any, Config, Path], tmp_path: Path, by_plan: bool
    ):
        from safetensors.torch import load_file

        theirs, config, path = torchvisions
        like = eqx.filter_eval_shape(ResNet, config, key=jax.random.key(0))
        plan = bridge.plan(path, like, torchvision_rules(config))
        back = tmp_path / "model.safetensors"
        bridge.save(bridge.load(path, like, plan), back, plan if by_plan else torchvision_rules(config))
        again = torch_resnet(config)
        again.load_state_dict(load_file(back))
        stored = {key: tensor for key, tensor in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
        assert all(tensor.equal(again.state_dict()[key]) for key, tensor in stored.items())

    def test_with_a_config_beside_it_is_pretrained(self, torchvisions: tuple[Any, Config, Path], tmp_path: Path):
        _, config, path = torchvisions
        fields = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 3]}
        fields["id2label"] = dict(enumerate(config.labels))
        (tmp_path / "config.json").write_text(json.dumps(fields))
        (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
        model = bridge.models.from_pretrained(tmp_path)
        assert model.config == config
        like = eqx.filter_eval_shape(ResNet, config, key=jax.random.key(0))
        assert eqx.tree_equal(model, bridge.load(path, like, torchvision_rules(config)))


PARAMETERS = {  # as torchvision's documentation counts them
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_sizes_have_as_many_parameters(name: str):
    model = eqx.filter_eval_shape(ResNet, TORCHVISION[name], key=jax.random.key(0))
    leaves, _ = jax.tree.flatten_with_path(model)
    assert PARAMETERS[name] == sum(leaf.size for path, leaf in leaves if "running" not in str(path[-1]))


def test_statistics_have_no_gradient():
    norm = FrozenBatchNorm(2)
    gradients = eqx.filter_grad(lambda norm: (norm(jnp.ones((2, 3, 3))) ** 2).sum())(norm)
    assert not gradients.running_mean.any()
    assert not gradients.running_var.any()
    assert gradients.weight.all()


def test_a_head_that_is_not_there_is_an_error():
    model = eqx.filter_eval_shape(ResNet, Config.from_dict(ODD), key=jax.random.key(0))
    with pytest.raises(bridge.BridgeError) as caught:
        model.logits(jnp.zeros((12, 2, 2)))
    assert str(caught.value) == text_of("models: ResNet without a head")
