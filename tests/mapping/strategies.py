"""Generated rules with their oracle: a mapping as numpy sees it, and the one line that says the same.

A mapping has factors. On each side a factor is a number in the name or lies in an axis, axes are products of factors in
any order, and one factor may be a choice: on each side `{a|b}` in the name, or `(a|b)` in an axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Side:
    """Where the factors are: `held` in the name, the others in `axes`, where `_` is the choice or the width of a part."""

    held: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]
    parts: bool

    @property
    def wide(self) -> bool:
        """Whether some axis is of the choice."""
        return any("_" in axis for axis in self.axes)


@dataclass(frozen=True)
class Mapping:
    """A rule's content. `sizes` of all factors; `widths` of the choice's branches, none where there is no choice."""

    sizes: dict[str, int]
    widths: tuple[int, ...]
    key: Side
    leaf: Side
    flip: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple("pqr"[: len(self.widths)])

    def spelled(self, side: Side, root: str) -> str:
        """One side as text."""
        name = ".".join([root, *(f"{{{factor}}}" for factor in side.held)])
        if self.widths and not side.parts:
            name += ".{" + "|".join(self.labels) + "}"
        inner = "(" + "|".join(self.labels) + ")"
        part = inner if side.parts else "_"
        axes = [tuple(part if f == "_" else f for f in axis) for axis in side.axes]
        shown = ["1" if not axis else axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes]
        return f"{name} [{' '.join(shown)}]"

    def rule(self) -> str:
        """The rule, with all sizes as options."""
        used = {f for side in (self.key, self.leaf) for axis in side.axes for f in axis} - {"_"}
        options = [f"{name}={self.sizes[name]}" for name in sorted(used)]
        if self.key.parts or self.leaf.parts:
            options += [f"{label}={width}" for label, width in zip(self.labels, self.widths, strict=True)]
        if self.flip:
            options.append(f'flip="{" ".join(self.flip)}"')
        text = f"{self.spelled(self.key, 'a')} -> {self.spelled(self.leaf, 'b')}"
        return f"{text} ; {', '.join(options)}" if options else text

    def arrays(self, side: Side, root: str, masters: list[np.ndarray]) -> Arrays:
        """The arrays of one side, of one master per branch whose axes are the factors and then the part."""
        found: Arrays = {}
        order = list(self.sizes)
        for numbers in product(*(range(self.sizes[f]) for f in side.held)):
            index = tuple(numbers[side.held.index(f)] if f in side.held else slice(None) for f in order)
            left = [f for f in order if f not in side.held]
            inner = [master[index] for master in masters]
            name = ".".join([root, *map(str, numbers)])
            if not self.widths:
                found[name] = self.shaped(side, left, inner[0][..., 0])
            elif side.parts:
                found[name] = self.shaped(side, [*left, "_"], np.concatenate(inner, -1))
            else:
                for label, one in zip(self.labels, inner, strict=True):
                    factors = [*left, "_"] if side.wide else left
                    found[f"{name}.{label}"] = self.shaped(side, factors, one if side.wide else one[..., 0])
        return found

    def shaped(self, side: Side, factors: list[str], array: np.ndarray) -> np.ndarray:
        """`array`, whose axes are `factors`, as the side's axes."""
        order = [factors.index(f) for axis in side.axes for f in axis]
        extents = dict(zip(factors, array.shape, strict=True))
        shape = [int(np.prod([extents[f] for f in axis], dtype=int)) for axis in side.axes]
        return array.transpose(order).reshape(shape)

    def tensors(self) -> Arrays:
        """The tensors, in which no number stands twice."""
        return self.arrays(self.key, "a", self.masters())

    def leaves(self) -> Arrays:
        """The leaves that the tensors make."""
        turned = [np.flip(m, [list(self.sizes).index(f) for f in self.flip]) for m in self.masters()]
        return self.arrays(self.leaf, "b", turned)

    def masters(self) -> list[np.ndarray]:
        shape = tuple(self.sizes.values())
        made: list[np.ndarray] = []
        start = 1
        for width in self.widths or (1,):
            count = int(np.prod((*shape, width)))
            made.append(np.arange(start, start + count, dtype=np.int32).reshape(*shape, width))
            start += count
        return made


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    """Any mapping of up to four factors and one choice."""
    names = "xyzu"[: draw(st.integers(0, 4))]
    sizes = {name: draw(st.integers(1, 3)) for name in names}
    widths = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))) if draw(st.booleans()) else ()
    on_key = {name: draw(st.sampled_from(("name", "axis"))) for name in names}
    on_leaf = {name: draw(st.sampled_from(("name", "axis"))) for name in names}
    parts = (draw(st.booleans()), draw(st.booleans())) if widths else (False, False)
    # Without an axis of parts there is nothing to be wide; one wide, a part may vanish.
    vanish = not any(parts) or (not all(parts) and draw(st.booleans()))
    widths = (1,) * len(widths) if vanish else widths
    key = draw(_sides(on_key, parts[0], bool(widths) and (parts[0] or not vanish)))
    leaf = draw(_sides(on_leaf, parts[1], bool(widths) and (parts[1] or not vanish)))
    inside = [name for name in names if on_key[name] == on_leaf[name] == "axis"]
    flip = tuple(name for name in inside if draw(st.integers(0, 3)) == 0)
    return Mapping(sizes, widths, key, leaf, flip)


@st.composite
def _sides(draw: st.DrawFn, where: dict[str, str], parts: bool, wide: bool) -> Side:
    held = tuple(draw(st.permutations([name for name, place in where.items() if place == "name"])))
    inside = [name for name, place in where.items() if place == "axis"]
    inside = draw(st.permutations([*inside, "_"] if wide else inside))
    axes: list[tuple[str, ...]] = []
    while inside:
        count = draw(st.integers(1, min(3, len(inside))))
        axes.append(tuple(inside[:count]))
        inside = inside[count:]
    if draw(st.booleans()):
        axes.insert(draw(st.integers(0, len(axes))), ())
    return Side(held, tuple(axes), parts)
