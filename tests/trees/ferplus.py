"""FER+ beside FER2013: the published file's votes, with the irregularities that it has."""

from collections.abc import Sequence
from pathlib import Path

from tests.trees import fer2013

HEADER = 'Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF'
VOTES = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')

Line = tuple[str, str, tuple[int, ...]]  # usage, image name, votes


def votes(**counts: int) -> tuple[int, ...]:
    """`votes(fear=7, NF=3)`."""
    assert set(counts) <= set(VOTES)
    return tuple(counts.get(name, 0) for name in VOTES)


def content(per_class: int = 2) -> tuple[list[fer2013.Row], list[Line]]:
    """Rows of both files: `per_class` clear cases of each of the eight expressions in each part, and in between rows
    without a name, without a majority, and with a name that another row has.
    """
    rows: list[fer2013.Row] = []
    lines: list[Line] = []
    number = 0  # what names count: it lags behind the rows, since some have no name
    for usage in fer2013.USAGES:
        pictures = [image for _, use, image in fer2013.rows(per_class + 2) if use == usage]
        cases = [votes(**{label: 6, 'unknown': 1, 'NF': 3}) for label in VOTES[:8]] * per_class
        labels = [label if label in fer2013.CODES else 'neutral' for label in VOTES[:8]] * per_class
        cases[1:1] = [votes(NF=10), votes(fear=4, anger=4, sadness=2), votes(unknown=9, fear=1)]
        labels[1:1] = ['fear', 'anger', 'fear']
        for position, (case, label) in enumerate(zip(cases, labels, strict=True)):
            named = position != 1
            rows.append((label, usage, pictures[position]))
            lines.append((usage, f'fer{number:07d}.png' if named else '', case))
            number += named and position != 4  # so that two rows have the same name
    return rows, lines


def write(root: Path, table: str = 'fer2013.csv', *, per_class: int = 2) -> tuple[list[fer2013.Row], list[Line]]:
    """table: 'fer2013.csv' or 'icml_face_data.csv'. Returns what the two files hold."""
    rows, lines = content(per_class)
    fer2013.write_table(root / 'fer2013' / table, rows)
    write_votes(root / 'FERPlus-master' / 'fer2013new.csv', lines)
    snapshot = root / 'FERPlus-master' / 'data' / 'FER2013Train' / 'label.csv'
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.write_text('fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0\n')
    fer2013.write_strays(root)
    return rows, lines


def write_votes(path: Path, lines: Sequence[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [f'{usage},{name},{",".join(map(str, counts))}' for usage, name, counts in lines]
    path.write_text('\n'.join([HEADER, *text, '']))
