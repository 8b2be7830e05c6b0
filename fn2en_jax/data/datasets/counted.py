"""Many names of one kind in a report: how many there are, and the first of them."""

from collections.abc import Sequence

_NAMED = 5


def counted(names: Sequence[str], what: str) -> list[str]:
    """One line such as '7 files without numbers: a.txt, b.txt, ...', and none where there are no names."""
    if not names:
        return []
    return [f'{len(names):,} {what}: {", ".join(names[:_NAMED])}' + (' ...' if len(names) > _NAMED else '')]
