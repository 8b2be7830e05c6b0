"""A table as text for the terminal, Markdown, CSV or LaTeX.

Each format takes a title and rows of equal length, of which the first holds the headings of the columns, and returns
lines without a line break at the end.
"""

import csv
import io
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def _text(title: str, rows: Rows) -> str:
    widths = [max(len(cell) for cell in column) + 2 for column in zip(*rows, strict=True)]
    lines = [
        row[0].ljust(widths[0]) + ''.join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return '\n'.join([title, '', *lines])


def _markdown(title: str, rows: Rows) -> str:
    lines = [f'| {" | ".join(row)} |' for row in [rows[0], ('---',) * len(rows[0]), *rows[1:]]]
    return '\n'.join([title, '', *lines])


def _csv(title: str, rows: Rows) -> str:
    del title  # a table that a program reads has none
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().rstrip('\n')


def _latex(title: str, rows: Rows) -> str:
    lines = [' & '.join(_escaped(cell) for cell in row) + r' \\' for row in rows]
    begin = rf'\begin{{tabular}}{{l{"r" * (len(rows[0]) - 1)}}}'
    return '\n'.join([f'% {title}', begin, r'\hline', lines[0], r'\hline', *lines[1:], r'\hline', r'\end{tabular}'])


def _escaped(cell: str) -> str:
    return cell.replace('%', r'\%').replace('&', r'\&').replace('_', r'\_').replace('±', r'$\pm$')


FORMATS = {'text': _text, 'markdown': _markdown, 'csv': _csv, 'latex': _latex}
