"""`View`: how the values of a tensor come out of others that are stored.

Planning and reading ask a key for its dtype, its shape, and which stored bytes hold a box of it. For most keys a box
of the key is a box of the one stored tensor, in the same dtype: nothing has to be said. Some formats say more, such as
weights that are stored as 8-bit codes with a scale for each block of them. For these the `Form` of a key in the `Table`
of its checkpoint names a `View`, and `Table.parts` the stored tensors that it takes. That is all that a new format
needs: nothing else in bridge asks what kind of view a key has.

A tensor that is stored as it is, but not in C order (transposed, or a slice of a larger one), needs no view: its `Form`
has strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

Box = tuple[range, ...]
"""One range of indices, of step 1, for each axis."""


class View(Protocol):
    """How tensors of one form are computed. It knows no file and no key; one object serves all keys of the form."""

    @property
    def grain(self) -> tuple[int, ...]:
        """For each axis a number: boxes that start and stop at multiples of it share no stored byte.

        Values are computed a band at a time, cut at these multiples where that is possible, so a band of one grain has
        to be small beside the memory.
        """
        ...

    def boxes(self, box: Box) -> Sequence[Box]:
        """The box of each part that `values` needs for `box`, in the order of the parts.

        The part with the most bytes comes first: jobs are ordered by where it lies in its file.
        """
        ...

    def values(self, box: Box, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Write the values of `box` to `out`.

        Called by several threads at once. What it takes of memory besides should not be much more than two arrays like
        `out` in float32.

        **Arguments:**

        - `box`: what is asked for, anywhere in the tensor and of any size.
        - `parts`: the values of each of `boxes(box)`, of its shape; not to be written to, and in any order of memory.
        - `out`: of the box's shape, its last axis in one run, of the form's dtype or one that it is `computed_in`; its
            contents are undefined. It is where the values go, where that is possible.
        """
        ...
