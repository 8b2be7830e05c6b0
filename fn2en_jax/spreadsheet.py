"""Cells of a CSV that a spreadsheet would take for a formula: marked when written, and given back when read."""

FORMULA = ('=', '+', '-', '@', '\t', '\r')  # what a formula begins with for one program or another
_MARK = "'"  # by which spreadsheets know a text


def marked(text: str) -> str:
    """The text as no spreadsheet computes it. `plain` undoes it exactly."""
    return _MARK + text if text.lstrip(_MARK).startswith(FORMULA) else text


def plain(cell: str) -> str:
    """What `marked` was given."""
    rest = cell.removeprefix(_MARK)
    return rest if rest.lstrip(_MARK).startswith(FORMULA) else cell
