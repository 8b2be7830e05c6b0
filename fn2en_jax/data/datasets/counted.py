"""Counts in the report of a set: many names of one kind, and totals held against the published ones."""

from collections.abc import Mapping, Sequence

_NAMED = 5


def counted(names: Sequence[str], what: str) -> list[str]:
    """One line such as '7 files without numbers: a.txt, b.txt, ...', and none where there are no names."""
    if not names:
        return []
    return [f'{len(names):,} {what}: {", ".join(names[:_NAMED])}' + (' ...' if len(names) > _NAMED else '')]


def apart(found: Mapping[str, int], published: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Totals that differ from the published ones: lines about what is missing, and about what is there beyond them."""
    short = {name: count - found[name] for name, count in published.items() if found[name] < count}
    over = {name: count for name, count in published.items() if found[name] > count}
    return (
        [f'{name}: {lack:,} of {published[name]:,} images' for name, lack in short.items()],
        [
            f'{name}: {found[name]:,} images, {found[name] - count:,} more than {count:,}'
            for name, count in over.items()
        ],
    )
