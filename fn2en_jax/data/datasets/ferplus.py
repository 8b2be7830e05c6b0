"""FER+: the faces of FER2013 with the votes of ten people each."""

import collections
import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from fn2en_jax.data.datasets import fer2013
from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.records import EXPRESSIONS, Dataset, Found, Record, Tree
from fn2en_jax.errors import UserError

VOTES = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')

_COUNTS = {
    'train': (8740, 7287, 3149, 3014, 2100, 119, 532, 119),
    'validation': (1182, 865, 415, 351, 287, 24, 62, 13),
    'test': (1090, 893, 396, 384, 273, 18, 83, 16),
}  # by `majority`, in the order of the votes
PUBLISHED = {
    f'{split}/{label}': count
    for split, counts in _COUNTS.items()
    for label, count in zip(VOTES[:8], counts, strict=True)
}

_COLUMNS = ('Usage', 'Image name', *VOTES)
_LARGEST = 1 << 25  # bytes; the published file has 1.6 million
_FEWEST_COMPARED = 100  # images from which on the two sets' labels are compared
_LEAST_AGREEMENT = 1 / 3  # chance gives about 0.2, and people differ from FER2013's labels on a third or so


@dataclasses.dataclass(frozen=True)
class Vote:
    """One row of `fer2013new.csv`.

    Attributes:
        usage: 'Training', 'PublicTest' or 'PrivateTest'.
        name: such as 'fer0000017.png'; '' where the image was taken for no face. It is no row number, and four names
            are given twice.
        votes: how many people chose each of VOTES; () where the row is unusable.
        fault: what makes it so.
    """

    usage: str
    name: str
    votes: tuple[int, ...]
    fault: str = ''


def majority(votes: Sequence[int]) -> str:
    """The official rule: single votes do not count, and the winner needs more than half of the others.

    Args:
        votes: one number for each of VOTES.

    Returns:
        One of EXPRESSIONS, or '' where none wins, be it that 'unknown' or 'NF' (no face) does.
    """
    kept = [vote if vote > 1 else 0 for vote in votes]
    top = max(kept)
    winner = VOTES[kept.index(top)]
    return winner if 2 * top > sum(kept) and winner in EXPRESSIONS else ''


def read_votes(path: Path) -> list[Vote]:
    """The rows of `fer2013new.csv`.

    Raises:
        UserError: the file cannot be read, or its first line does not name the columns.
    """
    rows = _rows(path)
    names = [name.strip().casefold() for name in next(rows, [])]
    if not {name.casefold() for name in _COLUMNS} <= set(names):
        found = ', '.join(names)[:100]
        raise UserError(f'{path}: line 1: the columns {", ".join(_COLUMNS)} are expected, found {found!r}')
    places = [names.index(name.casefold()) for name in _COLUMNS]
    return [_vote(row, places) if len(row) == len(names) else _cut(row, len(names)) for row in rows if row]


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f'{path}: more than {_LARGEST >> 20} MB, no list of votes')
        text = path.read_bytes().decode('utf-8-sig', 'backslashreplace')
        yield from csv.reader(io.StringIO(text, newline=''))
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    except csv.Error as error:
        raise UserError(f'{path}: is not CSV ({error})') from error


def _vote(row: list[str], places: list[int]) -> Vote:
    usage, name, *votes = (row[place].strip() for place in places)
    if usage not in fer2013.SPLITS:
        return Vote('', name, (), f'Usage is {usage[:40]!r}, none of {", ".join(fer2013.SPLITS)}')
    if not all(vote.isascii() and vote.isdigit() and len(vote) < 4 for vote in votes):
        return Vote(usage, name, (), 'a vote is no number')
    return Vote(usage, name, tuple(map(int, votes)))


def _cut(row: list[str], cells: int) -> Vote:
    return Vote('', '', (), f'{len(row)} cells, not {cells}')


@dataclasses.dataclass(frozen=True)
class FERPlus(Dataset):
    """Votes and pixels are joined row by row, as the official script does; no name is shared by the two files."""

    def find(self, tree: Tree) -> Found:
        copies: list[str] = []
        lists = first_of_each(tree.match(r'fer2013new\.csv'), lambda _: '', copies)
        if not lists:
            raise self.foreign(tree, 'fer2013new.csv')
        votes_match, votes_path = lists['']
        table_path = fer2013.find_table(tree, copies, beside=votes_match.string)
        if table_path is None:
            raise self.foreign(tree, 'fer2013.csv or icml_face_data.csv beside fer2013new.csv, which holds no pixels')
        votes, rows = read_votes(votes_path), tuple(fer2013.read_table(table_path))
        _check_rows(votes, rows, f'{votes_path} and {table_path.name}')
        found = _join(votes, rows, [*copies, *_unread(tree)])
        if not found.records:
            raise self.foreign(tree, 'image that a majority gave an expression to')
        return found


FERPLUS = FERPlus(
    name='ferplus',
    title='FER+',
    access='fer2013new.csv from https://github.com/microsoft/FERPlus, and FER2013, from '
    'https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge',
    layout='fer2013new.csv together with fer2013.csv or icml_face_data.csv',
    faces='none',
)


def _check_rows(votes: Sequence[Vote], rows: Sequence[fer2013.Row], where: str) -> None:
    """Nothing but the position says which votes belong to which image, so the positions are doubted."""
    advice = 'they belong together only as published: the same rows in the same order'
    if len(votes) != len(rows):
        raise UserError(f'{where} have {len(votes)} and {len(rows)} rows; {advice}')
    sound = [(vote, row) for vote, row in zip(votes, rows, strict=True) if not vote.fault and not row.fault]
    for vote, row in sound:
        if vote.usage != row.usage:
            raise UserError(f'{where} differ: row {row.number} is {vote.usage} and {row.usage}; {advice}')
    pairs = [(label, row.label) for vote, row in sound if (label := majority(vote.votes))]
    equal = sum(label == other for label, other in pairs)
    if len(pairs) >= _FEWEST_COMPARED and equal < _LEAST_AGREEMENT * len(pairs):
        raise UserError(f'{where} agree on {equal} of {len(pairs)} expressions, as if shuffled; {advice}')


def _join(votes: Sequence[Vote], rows: Sequence[fer2013.Row], notes: Sequence[str]) -> Found:
    records, skipped = [], []
    passed: collections.Counter[str] = collections.Counter()
    for vote, row in zip(votes, rows, strict=True):
        if vote.fault or row.fault:
            skipped.append(f'row {row.number}: {vote.fault or row.fault}')
        elif not vote.name:
            passed['no image name, which means no face'] += 1
        elif label := majority(vote.votes):
            file = f'row {row.number} {row.usage} {vote.name}'
            records.append(Record(row.image, file, label, split=fer2013.SPLITS[row.usage]))
        else:
            passed['no expression has more than half of the votes (official majority rule)'] += 1
    skipped += [f'{count} rows: {reason}' for reason, count in sorted(passed.items())]
    edition = 'fer2013new.csv, official majority rule'
    return Found(tuple(records), edition, PUBLISHED, skipped=(*skipped, *notes))


def _unread(tree: Tree) -> list[str]:
    return [
        f'{match[1]}/label.csv: another snapshot of the votes, not read'
        for match, _ in tree.match(r'(FER2013(?:Train|Valid|Test))/label\.csv')
    ]
