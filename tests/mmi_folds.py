"""The clips of MMI that FMPN uses, as facts: whose they are, and in which of its ten folds each is tested.

Per fold, persons and the numbers of their clips, out of the public lists datasets/MMI/test_ids_*.csv of FMPN. Which
clip shows which expression is not told there; how many show each is.
"""

_FOLDS = """
S050 3 4 5 6 7 8 10 11 12 13 14 15 16 S053 3 4 5 13 14 18 S054 1 23
S047 1 2 3 4 6 7 8 9 10 11 12 S048 1 2 3 4 5 6 9 10 S049 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17
S044 1 2 3 4 S045 2 3 4 5 6 7 8 9 10 11 12 13 S046 1 2 3 4 5 6 8 10 11 12 14 15 17 19
S041 1 5 6 7 8 S042 1 4 6 7 S043 1 3 4 5
S038 1 2 4 5 6 7 8 S039 1 2 3 4 5 6 S040 1 2 3 4 5 7 9 10
S034 1 2 3 4 5 7 S035 1 2 3 4 6 S036 1 2 3 4 5 S037 1 2 3 4 5 6 7
S031 1 3 4 5 6 7 8 S032 1 2 3 6 8 10 11 S033 1 2 3 5 6 7 8 9 10 11
S016 1 S028 1 2 3 4 S030 3 5 6 7
S005 105 106 109 S006 108 S015 2
S001 100 101 104 105 106 107 108 109 114 115 116 117 S002 99 100 103 104 105 107 108 113 114 117 118 S003 102 104 106
"""
CLIPS = {'anger': 33, 'disgust': 32, 'fear': 28, 'happiness': 42, 'sadness': 32, 'surprise': 41}
LEFT_OUT = ('S002-106', 'S021-003', 'S021-004', 'S021-005', 'S021-006')  # of the 213 clips with a basic emotion
IMAGES = (63, 108, 90, 39, 63, 69, 72, 27, 15, 78)  # tested per fold, three of each clip


def clips() -> list[tuple[str, str, int]]:
    """(person, clip, fold) of the 208 clips, such as ('S050', 'S050-003', 0)."""
    found = []
    for fold, line in enumerate(_FOLDS.strip().split('\n')):
        person = ''
        for word in line.split():
            if word.startswith('S'):
                person = word
            else:
                found.append((person, f'{person}-{int(word):03}', fold))
    return found
