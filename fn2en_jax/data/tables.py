"""What a user says about their own photographs: a CSV file or a folder per class, read and checked.

Every check runs before anything is reported, so that one reading names all the mistakes, with their line
numbers.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import io
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from absl import logging

from fn2en_jax.data import images
from fn2en_jax.errors import UserError

MAX_LISTED = 20  # problems shown of one table
LONGEST_NAME = 100  # characters of a class: it is printed in tables and drawn on axes
SPLITS = ('train', 'test', 'validation')
POINTS = tuple(
    f'{part}_{axis}' for part in ('left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth') for axis in 'xy'
)

Points = tuple[tuple[float, float], ...]  # five landmarks x, y

_MISSING = {
    '',
    'nan',
    'NaN',
    'NAN',
    'null',
    'NULL',
    'N/A',
    '<NA>',
}  # how spreadsheets and pandas write an empty cell
_JUNK = {'thumbs.db', 'desktop.ini'}  # what file browsers leave behind; hidden files are passed over as well


@dataclasses.dataclass(frozen=True)
class Table:
    """A checked list of N image files and what was said about them.

    Attributes:
      files: paths as written by the user, relative to the folder of `source`; unique.
      paths: the same files as absolute paths; each existed and lay inside that folder when the table was
        read.
      labels: N names (an expression, or in an identity table a person), as the user spells them.
      subjects: who is shown, N names, or None.
      folds: N fold numbers, each ≥ 0, or None.
      splits: N of 'train', 'test' or 'validation', or None. Never given together with folds.
      class_names: the label names, sorted; or those the caller prescribed, in the caller's order.
      source: the CSV file or folder.
      lines: the line of each file in the CSV, counted from 1; None for a folder.
      points: per image five landmarks (x, y) in pixels, in the order of POINTS, or None for an image whose ten cells
        are empty, which is detected; None where no image has any.
    """

    files: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    subjects: tuple[str, ...] | None
    folds: tuple[int, ...] | None
    splits: tuple[str, ...] | None
    class_names: tuple[str, ...]
    source: Path
    lines: tuple[int, ...] | None = None
    points: tuple[Points | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)


def read_expressions(path: str | Path, *, class_names: Sequence[str] | None = None, complete: bool = True) -> Table:
    """Reads a table of expressions: columns `file, expression[, subject][, fold | split]` and the ten of POINTS where
    landmarks are known, or a folder per class.

    Args:
      path: a CSV file (UTF-8, comma-separated, first line the column names) or a folder.
      class_names: the classes that may occur, in the order that gives them their meaning; None takes what is
        there.
      complete: whether the table must be fit for training: at least two classes, an example of each of
        `class_names`, and a test image in every fold or split. Turn it off to evaluate a trained net on
        whatever there is.

    Raises:
      UserError: names every problem found, up to MAX_LISTED of them, with line numbers.
    """
    return _read(Path(path), 'expression', ('subject', 'fold', 'split', *POINTS), class_names, complete)


def read_identities(path: str | Path) -> Table:
    """Reads a table of persons for the face net: columns `file, identity`, or a folder per person.

    The persons are the labels and the subjects of the result.

    Raises:
      UserError: as `read_expressions`.
    """
    table = _read(Path(path), 'identity', POINTS, None, True)
    return dataclasses.replace(table, subjects=table.labels)


def read_folder(folder: str | Path, *, class_names: Sequence[str] | None = None, complete: bool = True) -> Table:
    """Reads a folder with one sub-folder per class, named as the class, holding its images and nothing else.

    Hidden files are passed over. Subjects, folds and splits are unknown.

    Raises:
      UserError: as `read_expressions`, with file names in place of line numbers.
    """
    return _read_folder(Path(folder), class_names, complete)


def read_landmarks(path: str | Path) -> list[tuple[int, str, Points | None]]:
    """Reads a table of landmarks alone: columns `file` and the ten of POINTS; others are not read.

    Returns:
      Line, counted from 1; `file` as it is written, which nobody has looked up; five landmarks (x, y) in pixels, in the
      order of POINTS, or None where all ten cells are empty.

    Raises:
      UserError: names every problem found, up to MAX_LISTED of them, with line numbers.
    """
    path = Path(path)
    problems = Problems(path)
    rows = _rows(path, ('file', *POINTS), (), problems)
    points = [_points(row, problems) for row in rows]
    problems.raise_if_any()
    return [(row.line or 0, row.cells['file'], five) for row, five in zip(rows, points, strict=True)]


def verify(table: Table) -> None:
    """Decodes every image of the table once, on all cores.

    Raises:
      UserError: lists the files that are empty, damaged, of no accepted format, or of absurd dimensions.
    """
    problems = Problems(table.source)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for row, fault in enumerate(pool.map(_fault, table.paths)):
            if fault:
                problems.add(table.lines[row] if table.lines else None, f'{quoted(table.files[row])}: {fault}')
    problems.raise_if_any()


def warn_of_copies(table: Table, digests: Sequence[str]) -> None:
    """Warns of images that are there twice under different names, as they are in many published sets.

    digests: N strings that are equal where the bytes of two files are.
    """
    first: dict[str, int] = {}
    pairs = [(row, first.setdefault(digest, row)) for row, digest in enumerate(digests)]
    pairs = [(row, other) for row, other in pairs if other != row]
    if not pairs:
        return
    relabelled = sum(table.labels[row] != table.labels[other] for row, other in pairs)
    places = [column for column in (table.folds, table.splits) if column]
    moved = sum(any(column[row] != column[other] for column in places) for row, other in pairs)
    row, other = pairs[0]
    logging.warning(
        '%s: %d images are byte for byte copies of others (%s of %s%s): %d with another label, %d in another fold or '
        'split. A copy may be tested that was trained on, and the accuracy will look better than it is.',
        table.source,
        len(pairs),
        quoted(table.files[row]),
        quoted(table.files[other]),
        ' ...' if len(pairs) > 1 else '',
        relabelled,
        moved,
    )


class Problems:
    """What is wrong with one file or folder, gathered so that the user reads all of it at once."""

    def __init__(self, source: Path):
        self._source = source
        self._found: list[tuple[int, str]] = []

    def add(self, line: int | None, text: str) -> None:
        """Notes a problem; `line` counts from 1 and is None where lines mean nothing."""
        self._found.append((line or 0, text))

    def raise_if_any(self) -> None:
        """Raises one UserError with the first MAX_LISTED problems in the order of their lines."""
        if not self._found:
            return
        shown = [f'line {line}: {text}' if line else text for line, text in sorted(self._found, key=lambda p: p[0])]
        if len(shown) == 1:
            raise UserError(f'{self._source}: {shown[0]}')
        more = [f'... and {len(shown) - MAX_LISTED} more'] if len(shown) > MAX_LISTED else []
        listed = '\n  '.join(shown[:MAX_LISTED] + more)
        raise UserError(f'{self._source}: {len(shown)} problems\n  {listed}')


def quoted(text: str) -> str:
    """A cell or file name on one line, shortened, with control characters made visible."""
    return repr(text if len(text) <= 80 else text[:60] + '...' + text[-17:])


@dataclasses.dataclass
class _Row:
    line: int | None
    cells: Mapping[str, str]


def _read(
    path: Path, label: str, optional: tuple[str, ...], class_names: Sequence[str] | None, complete: bool
) -> Table:
    if path.is_dir():
        return _read_folder(path, class_names, complete)
    problems = Problems(path)
    rows = _rows(path, ('file', label), optional, problems)
    return _table(path, path.parent, rows, label, class_names, complete, problems)


def _rows(path: Path, needed: Sequence[str], optional: Sequence[str], problems: Problems) -> list[_Row]:
    lines = _csv_lines(path, _text(path))
    line, header = next(lines, (1, []))
    columns = _columns(path, [name.strip() for name in header], needed, optional)
    rows = []
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue  # a blank line
        if len(cells) != len(header):
            problems.add(line, f'{len(cells)} cells, but the first line names {len(header)} columns')
        elif row := _cells(line, cells, columns, problems):
            rows.append(_Row(line, row))
    if not rows:
        problems.add(None, 'no images: there is no complete line below the column names')
        problems.raise_if_any()
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f'{path}: no such file') from None
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b'\n', 0, error.start) + 1, error.object[error.start]
        raise UserError(f'{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8') from error
    if '\0' in text:
        line = text.count('\n', 0, text.index('\0')) + 1
        raise UserError(f'{path}: line {line}: holds a zero byte, so this is no UTF-8 text; save the file as UTF-8')
    return text


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number (of its first line, when quotes make a row span several) and cells of each row."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f'{path}: line {line}: {error}; is a quotation mark left open?') from error


def _columns(path: Path, header: list[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Where the known columns stand; others may be there and are not read."""
    missing = [name for name in needed if name not in header]
    if missing:
        found = ', '.join(quoted(name) for name in header) or 'an empty line'
        hint = '; separate the columns by commas' if len(header) == 1 and re.search('[;\t|]', header[0]) else ''
        noun = 'columns' if len(missing) > 1 else 'column'
        raise UserError(f'{path}: line 1: no {noun} {", ".join(missing)}; found {found}{hint}')
    known = [name for name in (*needed, *optional) if name in header]
    for name in known:
        if header.count(name) > 1:
            raise UserError(f'{path}: line 1: column {name} is there {header.count(name)} times')
    if absent := [name for name in POINTS if name in optional and name not in known and set(known) & set(POINTS)]:
        raise UserError(f'{path}: line 1: landmarks are ten columns; {", ".join(absent)} not found')
    if 'fold' in known and 'split' in known:
        raise UserError(f'{path}: line 1: columns fold and split exclude each other; keep one')
    return {name: header.index(name) for name in known}


def _cells(line: int, cells: list[str], columns: Mapping[str, int], problems: Problems) -> dict[str, str] | None:
    row = {name: cells[place].strip() for name, place in columns.items()}
    empty = [name for name, cell in row.items() if cell in _MISSING]
    if set(POINTS) <= set(empty):  # no landmarks are known of this image
        empty = [name for name in empty if name not in POINTS]
    for name in empty:
        problems.add(line, f'{name} is empty' + (f' ({row[name]})' if row[name] else ''))
    return None if empty else row


def _read_folder(folder: Path, class_names: Sequence[str] | None, complete: bool) -> Table:
    problems = Problems(folder)
    rows: list[_Row] = []
    for entry in _entries(folder):
        if entry.is_dir():
            rows.extend(_folder_rows(entry, problems))
        elif entry.suffix.lower() in images.SUFFIXES:
            problems.add(None, f'{quoted(entry.name)}: an image outside the class folders')
    if not rows:
        problems.add(None, 'no images: one sub-folder per class is expected, with its images inside')
        problems.raise_if_any()
    return _table(folder, folder, rows, 'class', class_names, complete, problems)


def _folder_rows(folder: Path, problems: Problems) -> Iterator[_Row]:
    entries = _entries(folder)
    if not entries:
        problems.add(None, f'class {quoted(folder.name)} is empty: its folder holds no image')
    for entry in entries:
        name = f'{folder.name}/{entry.name}'
        if entry.is_dir():
            problems.add(None, f'{quoted(name)}: a folder inside a class folder is not read')
        elif entry.suffix.lower() not in images.SUFFIXES:
            problems.add(None, f'{quoted(name)}: not an image by its name ({" ".join(images.SUFFIXES)})')
        else:
            yield _Row(None, {'file': name, 'class': folder.name})


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        raise UserError(f'{folder}: no such folder') from None
    except OSError as error:
        raise UserError(f'{folder}: cannot be read as a folder ({error.strerror})') from error
    return [entry for entry in entries if not entry.name.startswith('.') and entry.name.lower() not in _JUNK]


def _table(
    source: Path,
    base: Path,
    rows: list[_Row],
    label: str,
    class_names: Sequence[str] | None,
    complete: bool,
    problems: Problems,
) -> Table:
    paths = _check_files(rows, base, problems)
    folds = _check_folds(rows, problems)
    splits = _check_splits(rows, problems)
    _check_persons(rows, 'fold', folds, problems)
    _check_persons(rows, 'split', splits, problems)
    names = _check_classes(rows, label, class_names, complete, problems)
    if complete:
        _check_tests(folds, splits, problems)
    points = _check_points(rows, problems)
    problems.raise_if_any()
    return Table(
        files=_column(rows, 'file'),
        paths=tuple(paths),
        labels=_column(rows, label),
        subjects=_column(rows, 'subject') or None,
        folds=folds,
        splits=splits,
        class_names=names,
        source=source,
        lines=tuple(row.line for row in rows if row.line is not None) or None,
        points=points,
    )


def _column(rows: Sequence[_Row], name: str) -> tuple[str, ...]:
    return tuple(row.cells[name] for row in rows) if name in rows[0].cells else ()


def _check_files(rows: Sequence[_Row], base: Path, problems: Problems) -> list[Path]:
    paths: list[Path] = []
    first_seen: dict[Path, _Row] = {}
    root = os.path.realpath(base)
    for row in rows:
        name = row.cells['file']
        path = Path(os.path.realpath(os.path.join(root, name)))
        if fault := _file_fault(name, path, root):
            problems.add(row.line, f'{quoted(name)}: {fault}')
        elif path in first_seen:
            other = first_seen[path]
            where = f'line {other.line}' if other.line else quoted(other.cells['file'])
            problems.add(row.line, f'{quoted(name)}: the same file as in {where}')
        else:
            first_seen[path] = row
        paths.append(path)
    return paths


def _file_fault(name: str, path: Path, root: str) -> str:
    """Why this file may not be used, or nothing. `path` is where `name` leads once all links are followed."""
    windows = PureWindowsPath(name)
    if os.path.isabs(name) or windows.drive:
        return 'an absolute path; give it relative to the folder of the table'
    if posixpath.normpath(name.replace('\\', '/')).split('/')[0] == '..' or not path.is_relative_to(root):
        return 'leads out of the folder of the table'
    if path.is_dir():
        return 'is a folder'
    if not path.exists():
        return 'no such file' + ('; write / between folders, not \\' if '\\' in name else '')
    if not path.is_file():
        return 'is no regular file'
    return '' if os.access(path, os.R_OK) else 'may not be read (permission denied)'


def _check_folds(rows: Sequence[_Row], problems: Problems) -> tuple[int, ...] | None:
    cells = _column(rows, 'fold')
    folds = tuple(int(cell) if re.fullmatch('[0-9]{1,6}', cell) else -1 for cell in cells)
    for row, cell, fold in zip(rows, cells, folds, strict=False):
        if fold < 0:
            problems.add(row.line, f'fold {quoted(cell)} is not a whole number from 0 on')
    return folds or None


def _check_splits(rows: Sequence[_Row], problems: Problems) -> tuple[str, ...] | None:
    cells = _column(rows, 'split')
    for row, cell in zip(rows, cells, strict=False):
        if cell not in SPLITS:
            problems.add(row.line, f'split {quoted(cell)} is none of {", ".join(SPLITS)}')
    return cells or None


def _check_points(rows: Sequence[_Row], problems: Problems) -> tuple[Points | None, ...] | None:
    if POINTS[0] not in rows[0].cells:
        return None
    points = tuple(_points(row, problems) for row in rows)
    return points if any(points) else None


def _points(row: _Row, problems: Problems) -> Points | None:
    if row.cells[POINTS[0]] in _MISSING:  # then all ten are
        return None
    values = []
    for name in POINTS:
        try:
            values.append(float(row.cells[name]))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            problems.add(row.line, f'{name} {quoted(row.cells[name])} is not a number of pixels')
    return tuple(zip(values[0::2], values[1::2], strict=True))


def _check_persons(rows: Sequence[_Row], column: str, places: Sequence[int | str] | None, problems: Problems) -> None:
    """A person tested in one fold must not be trained on in it: each person keeps to one fold or split."""
    home: dict[str, tuple[int | str, int | None]] = {}
    for row, place, subject in zip(rows, places or (), _column(rows, 'subject'), strict=False):
        if place == -1 or (column == 'split' and place not in SPLITS):
            continue  # reported already
        first, line = home.setdefault(subject, (place, row.line))
        if place != first:
            text = f'subject {quoted(subject)} is in {column} {place} here and in {column} {first} in line '
            problems.add(row.line, f'{text}{line}; keep a person in one {column}')


def _check_classes(
    rows: Sequence[_Row], label: str, class_names: Sequence[str] | None, complete: bool, problems: Problems
) -> tuple[str, ...]:
    found = collections.Counter(_column(rows, label))
    names = tuple(sorted(found) if class_names is None else class_names)
    if class_names is None:
        first = {row.cells[label]: row for row in reversed(rows)}
        for name, row in first.items():
            if fault := _name_fault(name):
                problems.add(row.line, f'{label} {quoted(name)}: {fault}')
    for row in rows:
        if row.cells[label] not in names:
            known = ', '.join(names)
            problems.add(row.line, f'unknown {label} {quoted(row.cells[label])}; the classes are {known}')
    if complete:
        for name in names:
            if not found[name]:
                problems.add(None, f'class {quoted(name)} is empty: no image has this {label}')
        if len(found) == 1:
            problems.add(None, f'one class only: every {label} is {quoted(next(iter(found)))}; at least two are needed')
    return names


def _name_fault(name: str) -> str:
    """Why a class may not be called so, or nothing. Names are printed: none may move the cursor."""
    if not name.isprintable():
        return 'holds a character that cannot be printed'
    return f'has {len(name)} characters, more than {LONGEST_NAME}' if len(name) > LONGEST_NAME else ''


def _check_tests(folds: Sequence[int] | None, splits: Sequence[str] | None, problems: Problems) -> None:
    if splits:
        for name in SPLITS[:2]:  # validation is a courtesy
            if name not in splits:
                problems.add(None, f'no image has split {name}')
    if folds and min(folds) >= 0:
        if len(set(folds)) == 1:
            problems.add(None, f'every image is in fold {folds[0]}; at least two folds are needed')
        for number in range(min(folds), max(folds)):
            if number not in folds:
                problems.add(None, f'fold {number} has no test image, but fold {max(folds)} exists')


def _fault(path: Path) -> str:
    """What keeps this image from being used, or nothing."""
    try:
        images.decode(path.read_bytes(), channels=3)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    return ''
