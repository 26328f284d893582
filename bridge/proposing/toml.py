"""A proposal as TOML: rules that are certain stand in it, guesses are comments that say what else fits and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge._text import fold, printable
from bridge.proposing.propose import Pair, Proposal

_SHOWN = 12  # names in a list of what is left
_OTHERS = 2


def toml_text(
    certain: Sequence[str], held: Sequence[str], guesses: Mapping[str, Sequence[str]], proposal: Proposal
) -> str:
    """The file: certain rules, then guesses by why they are guesses, and what is left on both sides.

    `held` drop keys of guesses: a rule that is taken stands before them.
    """
    lines = ["rules = ["]
    lines += [f"  {quoted(rule)}," for rule in certain]
    for drop in proposal.drops:
        lines.append(f"  {quoted(drop.rule)},  # {printable(drop.why)}")
    if guesses:
        lines += ["", "  # Guesses. Take the # away from those that are right."]
        for why, rules in guesses.items():
            lines += [f"  # {why}", *(f"  # {quoted(rule)}," for rule in rules)]
    if held:
        lines += ["", "  # Until you take a guess for these, no leaf takes them by its own name."]
        lines += [f"  {quoted(rule)}," for rule in held]
    lines.append("]")
    lines += _rest("Leaves without a proposal:", proposal.unmatched)
    lines += _rest("Keys without one (a rule 'KEY -> _' drops what is not needed):", proposal.left)
    return "\n".join(lines)


def quoted(text: str) -> str:
    """A text as TOML writes it."""
    shown = "".join(
        c if c.isprintable() else f"\\U{ord(c):08x}" for c in text.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{shown}"'


def reason(pair: Pair) -> str:
    """Why a pair is a guess, and what else fits."""
    others = ", ".join(map(printable, pair.others[:_OTHERS]))
    more = f" and {len(pair.others) - _OTHERS} more" if len(pair.others) > _OTHERS else ""
    return f"{printable(pair.doubt)}{f': also {others}{more}' if others else ''}"


def _rest(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = [printable(label) for label, _ in fold(names)]
    more = [f"#   … and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ["", f"# {title}", *(f"#   {name}" for name in shown[:_SHOWN]), *more]
