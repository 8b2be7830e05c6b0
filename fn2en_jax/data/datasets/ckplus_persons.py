"""Which of the 118 labelled persons of CK+ shows which emotion: one sequence for each of these 327 pairs.

As in the public lists of Emotion-FAN (data/txt/CK+_10-fold_sample_IDascendorder_step10.txt) and of FMPN
(datasets/CKPlus), which agree.
"""

from collections.abc import Iterable

_SHOWN = {
    'anger': (
        '10 11 14 22 26 28 29 32 34 37 42 45 50 55 58 66 67 71 72 75 82 87 89 90 92 100 109 111 112 113 117 119 '
        '126 127 129 130 133 134 136 501 502 503 504 506 999'
    ),
    'contempt': ('138 139 147 148 149 151 154 155 156 157 158 160 502 503 504 505 506 895'),
    'disgust': (
        '5 11 22 32 35 44 45 46 51 52 54 55 56 57 58 60 61 62 65 67 68 69 70 71 73 74 75 76 77 78 79 80 81 82 85 '
        '87 88 90 95 96 97 98 99 102 105 106 107 108 109 111 116 124 125 128 129 130 131 132 134'
    ),
    'fear': ('11 32 46 50 54 55 59 62 65 68 74 84 91 102 117 119 124 125 132 138 501 502 504 506 999'),
    'happiness': (
        '10 11 14 26 32 34 35 37 42 44 50 52 53 55 56 57 60 61 62 63 64 65 66 67 68 69 70 71 72 74 75 76 78 79 83 '
        '85 86 87 89 91 92 93 94 95 96 97 98 99 100 106 108 109 114 115 116 124 125 127 128 129 130 131 132 133 '
        '134 135 136 137 138'
    ),
    'sadness': ('11 14 26 42 46 64 66 71 80 81 93 95 106 108 113 115 125 130 131 132 136 137 138 501 503 504 505 506'),
    'surprise': (
        '10 11 14 22 26 32 34 35 37 42 44 46 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 73 '
        '74 75 76 77 78 79 80 81 82 84 85 86 87 88 89 90 92 94 95 96 97 99 100 101 102 107 110 111 113 114 115 116 '
        '117 119 122 124 125 126 127 129 130 131 132 133 135 136 137 138'
    ),
}
LABELLED = {label: frozenset(f'S{int(number):03}' for number in numbers.split()) for label, numbers in _SHOWN.items()}


def absent(found: Iterable[tuple[str, str]]) -> list[str]:
    """The persons, and of the others the emotions, that should be there and are not, for people; in ascending order.

    found: (person, emotion) of the labelled sequences, such as ('S010', 'anger').
    """
    there = set(found)
    persons = {person for person, _ in there}
    lacking: dict[str, list[str]] = {}
    for label, shown_by in LABELLED.items():
        for person in shown_by:
            if (person, label) not in there:
                lacking.setdefault(person, []).append(label)
    return [_line(person, labels, person in persons) for person, labels in sorted(lacking.items())]


def _line(person: str, labels: list[str], is_there: bool) -> str:
    return f'{person}: no sequence labelled {", ".join(labels)}' if is_there else f'{person} ({", ".join(labels)})'
