"""The recorder, on models of transformers', and on what people build of torch.nn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from bridge.checking.kept import Kept, order, tensors
from bridge.checking.recording import Recording
from tests.checking.models import inputs, torch_model

pytestmark = pytest.mark.torch
Record = Callable[..., Any]


def recorded(record: Record, tmp_path: Path, model: nn.Module, given: Any, **options: Any) -> Recording:
    path = tmp_path / "run.safetensors"
    record(model, given, path, **options)
    return Recording.read(path)


def first(tree: Any) -> Kept:
    return next(tensors(tree))


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2", "mixtral", "vit"])
def test_every_module_that_ran_is_there_with_its_very_values(record: Record, tmp_path: Path, name: str) -> None:
    model, given = torch_model(name), inputs(name)
    found: dict[str, list[torch.Tensor]] = {}
    for at, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, at=at: found.setdefault(at, []).append(out))
    recording = recorded(record, tmp_path, model, given)
    assert {call.module for call in recording.calls} == set(found)
    for at, (output, *_) in found.items():
        if isinstance(output, torch.Tensor) and output.ndim > 1:
            kept = first(recording.calls_of(at)[0].output)
            assert kept.shape == tuple(output.shape)
            assert (kept.take(output.detach().numpy()) == kept.matrix).all(), at
    assert recording.skipped == ()


def test_the_reference_reader_reads_the_file(record: Record, tmp_path: Path) -> None:
    recorded(record, tmp_path, torch_model("llama"), inputs("llama"))
    with safe_open(tmp_path / "run.safetensors", "pt") as file:
        content = json.loads(file.metadata()["recording"])
        for entry in content["tensors"]:
            tensor = file.get_tensor(entry["file"])
            assert str(tensor.dtype) == f"torch.{entry['dtype']}"
            assert tensor.numel()


def test_inputs_of_a_layer_and_outputs_of_the_one_before_are_one_tensor(record: Record, tmp_path: Path) -> None:
    recording = recorded(record, tmp_path, torch_model("llama"), inputs("llama"))
    (norm,), (q,) = (recording.calls_of(f"model.layers.0.{at}") for at in ("input_layernorm", "self_attn.q_proj"))
    assert first(norm.output).number == first(q.args).number


def test_positions_keywords_tuples_and_dicts(record: Record, tmp_path: Path) -> None:
    class Part(nn.Module):
        def forward(self, pair, *, scale, names):
            return {"sum": pair[0] + pair[1] * scale, "more": [names, None]}

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()

        def forward(self, a, b):
            return self.part((a, b), scale=2.0, names="x")["sum"]

    recording = recorded(record, tmp_path, Whole().eval(), (torch.ones(2, 3), torch.ones(2, 3)))
    (call,) = recording.calls_of("part")
    assert [kept.shape for kept in call.args[0]] == [(2, 3), (2, 3)]
    assert call.kwargs == {"scale": 2.0, "names": "x"}
    assert call.output["more"] == ("x", None)
    assert (call.output["sum"].matrix == 3).all()


def test_a_layer_that_works_in_place_does_not_spoil_what_it_took(record: Record, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)).eval()
    recording = recorded(record, tmp_path, model, torch.randn(4, 3))
    (linear,), (relu,) = recording.calls_of("0"), recording.calls_of("1")
    assert (first(linear.output).matrix < 0).any()
    assert (first(relu.args).matrix < 0).any()
    assert (first(relu.output).matrix >= 0).all()


def test_modules_called_twice_and_shared(record: Record, tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.same = self.one
            self.tied = nn.Linear(3, 3, bias=False)
            self.tied.weight = self.one.weight

        def forward(self, x):
            return self.tied(self.same(self.one(x)))

    recording = recorded(record, tmp_path, Twice().eval(), torch.randn(2, 3))
    assert len(recording.calls_of("one")) == 2
    assert recording.modules["one"].aliases == ("same",)
    assert recording.params["one.weight"].storage == recording.params["tied.weight"].storage


def test_many_calls_are_cut_and_said_so(record: Record, tmp_path: Path) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(2, 2)

        def forward(self, x):
            for _ in range(20):
                x = self.step(x)
            return x

    recording = recorded(record, tmp_path, Loop().eval(), torch.randn(2, 2))
    assert len(recording.calls_of("step")) == 8
    assert recording.skipped == (("step", "called more than 8 times: the first 8 calls are kept"),)


def test_bfloat16(record: Record, tmp_path: Path) -> None:
    recording = recorded(record, tmp_path, torch_model("llama").bfloat16(), inputs("llama"))
    assert str(first(recording.calls_of("model.norm")[0].output).dtype) == "bfloat16"


def test_a_model_that_generates(record: Record, tmp_path: Path) -> None:
    given = inputs("gpt2") | {"attention_mask": torch.ones(2, 12, dtype=torch.long)}
    recording = recorded(record, tmp_path, torch_model("gpt2"), given, generate=3)
    assert [first(call.kwargs["input_ids"]).shape for call in recording.calls_of("")] == [(2, 12), (2, 1), (2, 1)]


def test_parameters_used_outside_of_layers(record: Record, tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 5))

        def forward(self, x):
            return x @ self.w

    model, x = Own().eval(), torch.randn(3, 4)
    recording = recorded(record, tmp_path, model, x)
    (op,) = recording.ops
    assert (op.param, op.module, op.shape) == ("w", "", (4, 5))
    assert (op.taken.matrix == op.taken.take(x.numpy())).all()
    assert (op.given.matrix == op.given.take((x @ model.w).detach().numpy())).all()


def test_attention_s_fast_path_comes_back(record: Record, tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    recording = recorded(record, tmp_path, layer, torch.randn(2, 5, 8))
    assert torch.backends.mha.get_fastpath_enabled() is before
    assert {op.param for op in recording.ops} == {"self_attn.in_proj_weight", "self_attn.out_proj.weight"}
    assert first(recording.calls_of("self_attn")[0].args).whole


def test_a_corner_is_a_true_pair_of_the_layer(record: Record, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2)).eval()
    recording = recorded(record, tmp_path, model, torch.randn(2, 3, 40, 30))
    for at, layer in model.named_children():
        (call,) = recording.calls_of(at)
        assert call.corner is not None
        taken, given = first(call.corner[0]), first(call.corner[1])
        assert taken.whole
        assert taken.shape[-1] < 20
        assert (layer(torch.tensor(taken.values)).detach().numpy() == given.values).all()


def test_the_limit_holds_and_rows_still_correspond(record: Record, tmp_path: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(64, 4096), nn.Linear(4096, 64)

        def forward(self, x):
            return self.down(self.up(x).relu())

    model, x = Wide().eval(), torch.randn(40, 64)
    path = tmp_path / "run.safetensors"
    sizes: list[int] = []
    for limit in (8 << 20, 300_000, 150_000):
        record(model, x, path, limit=limit)
        recording = Recording.read(path)
        sizes.append(sum(kept.values.nbytes for call in recording.calls for kept in tensors((call.args, call.output))))
        (up,) = recording.calls_of("up")
        assert (first(up.output).take(model.up(x).detach().numpy()) == first(up.output).matrix).all()
        assert set(first(up.output).rows.tolist()) == set(first(recording.calls_of("down")[0].args).rows.tolist())
        assert path.stat().st_size < limit + 20_000
    assert sizes[0] > sizes[1] > sizes[2]


def test_any_prefix_of_the_order_is_spread_out(record: Record) -> None:
    for count in (0, 1, 2, 5, 16, 17, 1000):
        assert sorted(order(count, count)) == list(range(count))
        assert order(count, 7) == order(count, count)[:7]
    assert sorted(order(1000, 6)) == [0, 128, 256, 512, 768, 999]


def test_what_cannot_be_recorded_is_refused_or_listed(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(ValueError, match="in training mode, where no two runs agree"):
        record(nn.Linear(2, 2), torch.ones(2), path)
    with (
        pytest.warns(DeprecationWarning, match="torch.jit.script"),
        pytest.raises(TypeError, match="is TorchScript, whose modules take no hooks"),
    ):
        record(torch.jit.script(nn.Linear(2, 2).eval()), torch.ones(2), path)
    assert not path.exists()

    class Sparse(nn.Module):
        def forward(self, x):
            return x.to_sparse(), torch.view_as_complex(x)

    record(Sparse().eval(), torch.ones(3, 2), path)
    output = Recording.read(path).calls_of("")[0].output
    assert [repr(one) for one in output] == [
        "<Tensor of float32, torch.sparse_coo, on cpu>",
        "<Tensor of complex64, torch.strided, on cpu>",
    ]


def test_a_model_that_raises_keeps_no_hooks(record: Record, tmp_path: Path) -> None:
    model = nn.Linear(3, 3).eval()
    with pytest.raises(RuntimeError):
        record(model, torch.ones(2), tmp_path / "run.safetensors")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_compiled_model_is_recorded_as_the_one_it_was(record: Record, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()
    recording = recorded(record, tmp_path, torch.compile(model, backend="eager"), torch.randn(2, 3))
    assert [call.module for call in recording.calls] == ["", "0", "1"]
