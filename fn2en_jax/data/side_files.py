"""Small files that come beside the images of a set (labels, landmarks, metadata): read within limits, never trusted."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from fn2en_jax.errors import UserError

_MAX_NUMBERS_BYTES = 1 << 16
_MAX_LINES_BYTES = 1 << 20
_MAX_XML_BYTES = 1 << 20
_ENCODINGS = (None, 'iso-8859-1')  # as declared; then for files that declare a wrong one


class Element(NamedTuple):
    """The start of an XML element: its name without namespace prefix, and its attributes."""

    tag: str
    attributes: Mapping[str, str]


def numbers(path: Path) -> list[float]:
    """The numbers of a text file, separated by white space.

    Raises:
        UserError: says, without the file's name, why these are no numbers.
    """
    try:
        values = [float(word) for word in _bytes(path, _MAX_NUMBERS_BYTES).decode('utf-8-sig').split()]
    except ValueError:
        raise UserError('holds something else than numbers') from None
    if not all(map(math.isfinite, values)):
        raise UserError('holds a number that is not finite')
    return values


def lines(path: Path) -> list[str]:
    """The lines of a text file, without white space around them; bytes that are no UTF-8 are replaced.

    Raises:
        UserError: says, without the file's name, why it cannot be read.
    """
    text = _bytes(path, _MAX_LINES_BYTES).decode('utf-8-sig', errors='replace')
    return [line.strip() for line in text.splitlines()]


def elements(path: Path) -> list[Element]:
    """The elements of an XML file in the order in which they begin.

    Nothing outside the file is read, and entities may not be declared.

    Raises:
        UserError: says, without the file's name, why this is no XML that can be read.
    """
    data = _bytes(path, _MAX_XML_BYTES)
    fault = ''
    for encoding in _ENCODINGS:
        try:
            return _parse(data, encoding)
        except (expat.ExpatError, LookupError, ValueError) as error:
            fault = fault or str(error)
    raise UserError(f'is no XML ({fault})')


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open('rb') as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
    if len(data) > limit:
        raise UserError(f'is larger than {limit} bytes')
    return data


def _parse(data: bytes, encoding: str | None) -> list[Element]:
    found: list[Element] = []
    parser = expat.ParserCreate(encoding)
    parser.StartElementHandler = lambda name, attributes: found.append(Element(name.rpartition(':')[2], attributes))
    parser.EntityDeclHandler = _refuse_entity
    parser.Parse(data, True)
    return found


def _refuse_entity(*_: object) -> None:
    raise UserError('declares entities')
