"""What a net says of faces: rows that people, programs, spreadsheets and pandas can read."""

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, overload

from fn2en_jax import spreadsheet
from fn2en_jax.errors import UserError

if TYPE_CHECKING:
    import pandas

FORMATS = ('.csv', '.jsonl')
NO_FACE = 'no face'

_BOX = ('box_x', 'box_y', 'box_width', 'box_height')
_EYES = ('left_eye_x', 'left_eye_y', 'right_eye_x', 'right_eye_y')
_CUT_BY = {'eyes': 'aligned by the eyes', 'box': 'cut by its box', 'centre': 'no face: the centre'}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One face, or a picture in which none was found or that cannot be read.

    Attributes:
        file: the picture's path as it was given, or 'image 3', counted from 0.
        frame: of a clip, counted from 0; None for a still.
        face: which face of the picture, counted from 0, the largest first; None where there is none.
        box: x, y, width, height of the face in pixels of the upright picture; None where it was not looked for.
        eyes: (x, y) of the left and the right eye (left and right of the image) in such pixels; None where unknown.
        cut_by: what the face was cut out by: 'eyes' (aligned), 'box', 'centre' (no face was found, and the centre of
            the picture was taken), 'as it is' (the picture is a face already); '' where there is none.
        expression: the most probable class; '' where there is none.
        probabilities: of every class by its name, in the net's order; empty where there is no face.
        problem: '' for a face, 'no face', or why the picture cannot be read.
    """

    file: str
    frame: int | None = None
    face: int | None = None
    box: tuple[float, float, float, float] | None = None
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None
    cut_by: str = ''
    expression: str = ''
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    problem: str = ''

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain values for JSON."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            'box': None if self.box is None else list(self.box),
            'eyes': None if self.eyes is None else [list(eye) for eye in self.eyes],
            'probabilities': dict(self.probabilities),
        }

    def line(self) -> str:
        """For people: where, which expression, how probable, and the next one."""
        where = self.file + ('' if self.frame is None else f'  frame {self.frame}')
        if self.problem:
            return f'{where}  {self.problem}'
        ranked = sorted(self.probabilities.items(), key=lambda each: -each[1])
        said = '  '.join(f'{name} {probability:.2f}' for name, probability in ranked[:2])
        which = f'face {self.face + 1}' if self.face else ''
        at = 'at {:.0f},{:.0f} {:.0f}x{:.0f}'.format(*self.box) if self.box else ''
        return f'{where}  {said}  ({", ".join(filter(None, [which, at, _CUT_BY.get(self.cut_by, self.cut_by)]))})'


class Predictions(Sequence[Prediction]):
    """The rows of some pictures, in the order of the pictures.

    Attributes:
        class_names: the net's K classes, in the order of its outputs.
    """

    def __init__(self, rows: Sequence[Prediction], class_names: Sequence[str]):
        self._rows = tuple(rows)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> 'Predictions': ...
    def __getitem__(self, index: int | slice) -> 'Prediction | Predictions':
        return Predictions(self._rows[index], self.class_names) if isinstance(index, slice) else self._rows[index]

    def __repr__(self) -> str:
        return '\n'.join(row.line() for row in self._rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per row, see `Prediction.to_dict`."""
        return [row.to_dict() for row in self._rows]

    def to_json(self, indent: int | None = None) -> str:
        """A JSON list of `to_dicts()`."""
        return json.dumps(self.to_dicts(), indent=indent, allow_nan=False)

    def to_dataframe(self) -> 'pandas.DataFrame':
        """One row per prediction with the columns of the CSV (see `columns`); what is unknown is missing.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError('to_dataframe needs pandas: pip install pandas; to_dicts() does without') from error
        return pandas.DataFrame([_cells(row, self.class_names) for row in self], columns=columns(self.class_names))


def columns(class_names: Sequence[str]) -> list[str]:
    """Columns of the CSV: those of a prediction, the box and the eyes spread out, and p_CLASS for every class.

    The prefix keeps a class called 'file' from meaning a file.
    """
    return [
        'file',
        'frame',
        'face',
        *_BOX,
        *_EYES,
        'cut_by',
        'expression',
        *(f'p_{name}' for name in class_names),
        'problem',
    ]


def _cells(row: Prediction, class_names: Sequence[str]) -> list[Any]:
    """The row's values, one for each of `columns`, None for what is not known."""
    return [
        row.file,
        row.frame,
        row.face,
        *(row.box or (None,) * 4),
        *((number for eye in row.eyes for number in eye) if row.eyes else (None,) * 4),
        row.cut_by,
        row.expression,
        *(row.probabilities.get(name) for name in class_names),
        row.problem,
    ]


def check_place(path: Path) -> None:
    """Refuses (UserError) another ending than one of FORMATS, and a place where no file can be written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f'{path}: the output is written as {" or ".join(FORMATS)}; give it such a name')
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error
    if not stat.S_ISREG(mode):
        raise UserError(f'{path} is {"a folder" if stat.S_ISDIR(mode) else "no regular file"}; name a file')
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f'cannot write {path}: {path.parent} is no folder that can be written')


class Output:
    """A file that is written row by row and has its name only when it is whole.

    Until then it has a hidden name of this process's own.

    Args:
        path: ends in one of FORMATS.
        class_names: of the net.

    Raises:
        UserError: for another ending, or a place that cannot be written.
    """

    def __init__(self, path: Path, class_names: Sequence[str]):
        check_place(path)
        self._path, self._names = path, tuple(class_names)
        self._temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
        with self._faults():
            self._file: TextIO = self._temporary.open('w', encoding='utf-8', newline='')
        self._csv = csv.writer(self._file, lineterminator='\n') if path.suffix.lower() == '.csv' else None
        if self._csv:
            self._csv.writerow(columns(class_names))

    def write(self, row: Prediction) -> None:
        """Appends a row."""
        with self._faults():
            if self._csv:
                self._csv.writerow([_cell(value) for value in _cells(row, self._names)])
            else:
                self._file.write(json.dumps(row.to_dict(), allow_nan=False) + '\n')

    def finish(self) -> None:
        """Gives the file its name."""
        with self._faults():
            self._file.close()
            os.replace(self._temporary, self._path)

    def keep(self) -> Path:
        """Ends it early; returns where the rows so far are kept, which is not its own name nor that of another file."""
        with self._faults():
            self._file.close()
            for number in itertools.count(1):
                name = f'{self._path.stem}.unfinished{f"-{number}" if number > 1 else ""}{self._path.suffix}'
                with contextlib.suppress(FileExistsError):
                    kept = self._path.with_name(name)
                    kept.open('x').close()
                    break
            os.replace(self._temporary, kept)
        return kept

    def discard(self) -> None:
        """Leaves nothing."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f'cannot write {self._path}: {error.strerror}') from error


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f'{value:.6g}'
    return spreadsheet.marked(value) if isinstance(value, str) else value
