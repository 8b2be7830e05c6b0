"""Draws the README's contact sheets of rendered faces: `PYTHONPATH=. python docs/contact_sheets.py`."""

from pathlib import Path

import numpy as np

from fn2en_jax.data import contact_sheet, synthetic, synthetic_persons

HERE = Path(__file__).parent
SIZE = 96
TESTED = 200_000  # the first person of the test part


def main() -> None:
    """Writes `contact_sheet.png` (expressions of test persons) and `contact_sheet_identities.png`."""
    names = synthetic_persons.EXPRESSIONS
    people = [TESTED + number for number in (1, 2, 3, 4, 7, 9, 10, 12)]
    shots = [(person, number) for person in people for number in range(len(names))]
    images = [synthetic.render(0, person, number, names[number], size=SIZE) for person, number in shots]
    _save('contact_sheet.png', images, [names[number] for _, number in shots])
    shots = [(person, number) for person in (1, 2, 3, 4, 5, 7, 8, 9) for number in range(7)]
    images = [synthetic.render(0, person, number, size=SIZE) for person, number in shots]
    _save('contact_sheet_identities.png', images, [f'person_{person:04d}' for person, _ in shots])


def _save(name: str, images: list[np.ndarray], captions: list[str]) -> None:
    sheet = contact_sheet.compose(np.stack(images), captions, columns=7)
    sheet.quantize(256).save(HERE / name, optimize=True)


if __name__ == '__main__':
    main()
