"""Write `texts.txt` anew from what the library says now: python -m tests.errors"""

from __future__ import annotations

import os

os.environ.update(JAX_PLATFORMS="cpu", HF_HUB_OFFLINE="1")

from tests.errors.promised import TEXTS, write
from tests.errors.texts import outcome

write(outcome().told)
print(f"{len(outcome().told)} texts in {TEXTS}: review the change")
