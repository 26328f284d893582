"""A plan in words: what goes where, folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bridge._text import fold, human_nbytes, plural, printable, quote, safe, template
from bridge.planning.axes import Shown, ShownAxes

if TYPE_CHECKING:
    from bridge.mapping.block import Block
    from bridge.mapping.template import ArraySpec
    from bridge.planning.lossy import Quantization
    from bridge.planning.plan import Plan


def recipe_text(plan: Plan) -> str:
    """What goes where: one line for keys and leaves that differ only in indices."""
    keys, leaves = plural(len(plan.specs), "key"), plural(len(plan.leaves), "leaf")
    rows = _rows(plan.blocks, plan)
    width = min(max((len(left) for left, _ in rows), default=0), 72)
    lines = [f"{quote(plan.source)} ({keys}) -> {plan.model} ({leaves}), {human_nbytes(plan.nbytes)} to read"]
    lines += [f"  {left:<{width}} -> {right}" for left, right in rows]
    lines += _merged(plan)
    for title, names in (("dropped", plan.dropped), ("ignored", plan.allowed), ("kept from the template", plan.kept)):
        lines += [f"  {title}: {printable(name)}" for name, _ in fold(names)]
    lines += [f"  kept from the template: {name}" for name in _partly(plan)]
    lines += [f"  filled by their layers: {printable(name)}" for name, _ in fold(plan.fills)]
    lines += [f"  matched nothing: {quote(rule)}" for rule in plan.idle]
    lines += [f"  warning: {printable(text)}" for text in plan.warnings]
    return safe("\n".join(lines))


def _partly(plan: Plan) -> Iterator[str]:
    """The places of leaves that no key fills, those of alike leaves as one."""
    if not plan.partly:
        return
    from bridge.mapping.cover import spans  # most leaves are filled whole

    places: dict[str, list[str]] = {}
    for name, holes in plan.partly.items():
        shown = ", ".join(spans(plan.leaves[name].shape, hole) for hole in holes[:3]) + ", …" * (len(holes) > 3)
        places.setdefault(shown, []).append(name)
    for shown, names in places.items():
        yield from (f"{printable(name)}{shown}" for name, _ in fold(names))


def _rows(blocks: Iterable[Block], plan: Plan) -> list[tuple[str, str]]:
    """Left and right sides of the recipe."""
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    axes = ShownAxes(plan)
    # In the order of the keys, however the blocks stand.
    for block in sorted(blocks, key=lambda block: int(block.terms[0].keys.numbers.min())):
        for number, term in enumerate(block.terms):
            # Rows of one leaf stand together, for they are one tensor of the model.
            by_leaf: dict[str, list[str]] = {}
            for key, leaf in zip(term.keys, block.leaves, strict=True):
                by_leaf.setdefault(leaf, []).append(key)
            for leaf, members in by_leaf.items():
                spec = plan.specs[members[0]]
                codes = plan.quantized.get(members[0])
                # Values that are computed from codes have the leaf's dtype from the start.
                stored = plan.leaves[leaf].dtype if codes else spec.dtype
                shown = axes.of(block, members[0], leaf)
                note = _note(block, stored.name, plan.leaves[leaf].dtype.name, number, shown)
                texts = dict.fromkeys(template(key)[0] for key in members)
                left = f"{shown.key} {_spelled(spec, codes)}"
                kinds = (*texts, template(leaf)[0], left, f"{shown.leaf} {_spelled(plan.leaves[leaf])}", note)
                keys, leaves = groups.setdefault(kinds, ([], []))
                keys += members
                leaves.append(leaf)
    rows: list[tuple[str, str]] = []
    for (*_, key_spec, leaf_spec, note), (keys, leaves) in groups.items():
        left = ", ".join(printable(name) for name, _ in fold(dict.fromkeys(keys)))
        right = ", ".join(printable(name) for name, _ in fold(dict.fromkeys(leaves)))
        rows.append((f"{left}{key_spec}", f"{right}{leaf_spec}{note}"))
    return rows


def _merged(plan: Plan) -> list[str]:
    """What adapters change, one line for keys that are changed alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for key in plan.keys if plan.merged else ():
        if key in plan.merged:
            alike.setdefault(plan.merged[key], []).append(key)
    return [
        f"  {printable(name)} {printable(text)}"
        for texts, keys in alike.items()
        for name, _ in fold(keys)
        for text in texts
    ]


def _spelled(spec: ArraySpec, codes: Quantization | None = None) -> str:
    shape = f"[{', '.join(map(str, spec.shape))}]"
    return f"{codes.format}{shape} {codes.how}".rstrip() if codes else f"{spec.dtype.name}{shape}"


def _note(block: Block, stored: str, dtype: str, term: int, shown: Shown) -> str:
    notes = [text for text, on in (("tie", block.tie), ("copy", block.copy), ("added", term > 0)) if on]
    if stored != dtype:
        notes.append(f"cast from {stored}")
    notes += [f"scale {block.scale}"] * (block.scale != 1) + [f"add {block.add}"] * (block.add != 0)
    notes += shown.notes
    return f"  ({', '.join(notes)})" if notes else ""
