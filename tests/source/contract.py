"""What every `ByteSource` must do. A new kind is tested by a subclass of five lines."""

from __future__ import annotations

import re
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bridge import _errors
from bridge.source import ByteSource
from tests.errors.promised import text_of

CONTENT = np.random.default_rng(0).integers(0, 256, 100_003, np.uint8).tobytes()


class ByteSourceContract:
    """Subclass it, name it `Test…`, and say how a source of given bytes is made."""

    @abstractmethod
    def make(self, content: bytes, folder: Path) -> ByteSource:
        """A source that holds `content` and is called `it`."""

    @pytest.fixture
    def source(self, tmp_path: Path):
        source = self.make(CONTENT, tmp_path)
        yield source
        source.close()

    def test_it_is_one(self, source: ByteSource):
        assert isinstance(source, ByteSource)
        assert source.nbytes == len(CONTENT)
        assert source.name == "it"
        assert source.parallel is None or source.parallel > 0
        assert source.gap_nbytes >= 0

    @pytest.mark.parametrize("lengths", [[], [0], [1], [100_003], [5, 0, 7, 64, 99_000], [1] * 5000])
    @pytest.mark.parametrize("offset", [0, 3])
    def test_buffers_are_filled_in_turn(self, source: ByteSource, lengths: list[int], offset: int):
        lengths = [*lengths[:-1], max(0, min(lengths[-1], len(CONTENT) - offset))] if lengths else []
        arrays = [np.full(n, 0xAA, np.uint8) for n in lengths]
        source.readinto([a.data for a in arrays], offset)
        assert b"".join(a.tobytes() for a in arrays) == CONTENT[offset : offset + sum(lengths)]

    def test_buffers_of_other_types(self, source: ByteSource):
        words, square = np.empty(10, np.uint64), np.empty((5, 4), np.float32)
        source.readinto([words.data, square.data], 8)
        assert words.tobytes() + square.tobytes() == CONTENT[8 : 8 + 160]

    def test_what_lies_beyond_the_end_is_refused(self, source: ByteSource):
        for offset, nbytes in [(len(CONTENT), 1), (len(CONTENT) - 5, 6), (10**9, 10)]:
            with pytest.raises(_errors.CheckpointError, match=r"^'it'"):
                source.readinto([memoryview(bytearray(nbytes))], offset)

    def test_nothing_at_the_end_is_fine(self, source: ByteSource):
        source.readinto([memoryview(bytearray())], len(CONTENT))

    def test_many_threads_at_once(self, source: ByteSource):
        def read(start: int) -> bool:
            got = bytearray(997)
            source.readinto([memoryview(got)], start)
            return bytes(got) == CONTENT[start : start + 997]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(0, 99_000, 250)))

    def test_closed_is_closed(self, source: ByteSource):
        source.close()
        source.close()
        message = "^" + re.escape(text_of("read: the file is closed").replace("'x.safetensors'", "'it'")) + "$"
        with pytest.raises(_errors.CheckpointError, match=message):
            source.readinto([memoryview(bytearray(1))], 0)
