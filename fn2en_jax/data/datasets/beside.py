"""Which of several files of one name belongs to another file: the one that lies nearest."""


def distance(one: str, other: str) -> int:
    """How many folders lie between two files of a `Tree`, given by their paths in it; 0 in the same folder."""
    here, there = one.split('/')[:-1], other.split('/')[:-1]
    shared = next((depth for depth, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
    shared = min(len(here), len(there)) if shared is None else shared
    return len(here) + len(there) - 2 * shared
