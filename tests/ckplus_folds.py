"""The labelled sequences of CK+ as facts: who shows what, and in which of the ten usual folds each person is tested.

Per fold, the persons of each emotion; a person may show several. The folds are those of a public list (Emotion-FAN,
data/txt/CK+_10-fold_sample_IDascendorder_step10.txt), which other public code agrees with.
"""

_FOLDS = """
A 130 501 C 147 D 5 35 54 74 106 116 130 F 54 74 84 501 H 35 64 74 94 106 116 130 S 64 106 130 501
  U 35 54 64 74 84 94 116 130
A 10 37 55 75 117 502 C 148 502 D 55 65 75 85 95 107 131 F 55 65 117 502 H 10 37 55 65 75 85 95 131 S 95 131
  U 10 37 55 65 75 85 95 107 117 131
A 11 42 66 119 503 C 149 503 D 11 56 76 96 108 132 F 11 119 132 H 11 42 56 66 76 86 96 108 132 S 11 42 66 108 132 503
  U 11 42 56 66 76 86 96 119 132
A 14 67 87 109 133 504 C 151 504 D 44 57 67 77 87 97 109 F 504 H 14 44 57 67 87 97 109 133 S 14 504
  U 14 44 57 67 77 87 97 122 133
A 22 45 58 134 C 154 505 D 22 45 58 68 78 88 98 124 134 F 68 124 H 68 78 98 124 134 S 505
  U 22 58 68 78 88 110 124
A 26 89 111 506 C 155 506 D 46 69 79 99 111 125 F 46 59 125 506 H 26 69 79 89 99 125 135 S 26 46 125 506
  U 26 46 59 69 79 89 99 111 125 135
A 28 50 90 100 112 126 136 C 156 895 D 60 70 80 90 F 50 H 50 60 70 100 136 S 80 136 U 50 60 70 80 90 100 126 136
A 29 71 113 127 999 C 157 D 51 61 71 81 F 91 999 H 61 71 91 127 137 S 71 81 113 137 U 51 61 71 81 101 113 127 137
A 32 72 82 92 C 138 158 D 32 52 62 82 102 128 F 32 62 102 138 H 32 52 62 72 92 114 128 138 S 138
  U 32 52 62 82 92 102 114 138
A 34 129 C 139 160 D 73 105 129 H 34 53 63 83 93 115 129 S 93 115 U 34 53 63 73 115 129
"""
_EMOTIONS = {
    'A': 'anger',
    'C': 'contempt',
    'D': 'disgust',
    'F': 'fear',
    'H': 'happiness',
    'S': 'sadness',
    'U': 'surprise',
}


def sequences() -> list[tuple[str, str, int]]:
    """(person, emotion, fold) of the 327 labelled sequences."""
    found = []
    for fold, line in enumerate(_FOLDS.replace('\n  ', ' ').strip().split('\n')):
        emotion = ''
        for word in line.split():
            if word in _EMOTIONS:
                emotion = _EMOTIONS[word]
            else:
                found.append((f'S{int(word):03d}', emotion, fold))
    return found
