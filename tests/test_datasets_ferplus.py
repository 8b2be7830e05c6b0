"""FER+: the official majority rule, and the join by row that nothing but the order supports."""

import collections

import numpy as np
import pytest

from fn2en_jax.data.datasets import ferplus
from fn2en_jax.data.datasets.ferplus import FERPLUS, PUBLISHED, majority
from fn2en_jax.data.records import EXPRESSIONS, Tree
from fn2en_jax.errors import UserError
from tests.trees import fer2013
from tests.trees import ferplus as trees
from tests.trees.ferplus import votes

SPLITS = {'Training': 'train', 'PublicTest': 'validation', 'PrivateTest': 'test'}


def find(root):
    return FERPLUS.find(Tree(root))


def refusal(root):
    with pytest.raises(UserError) as caught:
        find(root)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('counts', 'label'),
    [
        ({'neutral': 4, 'sadness': 1, 'anger': 3, 'disgust': 2}, ''),  # 4 of 9
        ({'neutral': 6, 'surprise': 1, 'sadness': 1, 'unknown': 2}, 'neutral'),  # 6 of 8
        ({'neutral': 5, 'surprise': 5}, ''),  # half is not more than half
        ({'fear': 2, 'anger': 1, 'sadness': 1, 'disgust': 1}, 'fear'),  # single votes do not count
        ({'fear': 1}, ''),
        ({'contempt': 6, 'unknown': 4}, 'contempt'),
        ({'unknown': 6, 'happiness': 4}, ''),
        ({'NF': 10}, ''),
        ({'happiness': 9}, 'happiness'),  # a row that sums to 9
        ({'surprise': 4, 'NF': 4}, ''),
        ({}, ''),
    ],
)
def test_majority(counts, label):
    assert majority(votes(**counts)) == label


@pytest.mark.parametrize('table', ['fer2013.csv', 'icml_face_data.csv'])
def test_votes_are_joined_to_pixels_by_row(tmp_path, table):
    rows, lines = trees.write(tmp_path, table)
    found = find(tmp_path)
    kept = [number for number, (_, name, counts) in enumerate(lines) if name and majority(counts)]
    assert len(found.records) == len(kept) == 48
    for record, number in zip(found.records, kept, strict=True):
        usage, name, counts = lines[number]
        assert record.file == f'row {number} {usage} {name}'
        assert (record.label, record.split) == (majority(counts), SPLITS[usage])
        np.testing.assert_array_equal(record.image, rows[number][2])
    classes = collections.Counter(f'{record.split}/{record.label}' for record in found.records)
    assert set(classes) == set(PUBLISHED)
    assert set(classes.values()) == {2}
    assert found.skipped == (
        '6 rows: no expression has more than half of the votes (official majority rule)',
        '3 rows: no image name, which means no face',
        'FER2013Train/label.csv: another snapshot of the votes, not read',
    )


def test_two_rows_of_one_name_stay_two_images(tmp_path):
    _, lines = trees.write(tmp_path)
    names = [name for _, name, _ in lines if name]
    assert len(set(names)) < len(names)
    files = [record.file for record in find(tmp_path).records]
    assert len(set(files)) == len(files)
    assert any('row 4 ' in file and 'fer0000003' in file for file in files)
    assert any('row 5 ' in file and 'fer0000003' in file for file in files)


def test_an_unusable_row_of_either_file_moves_no_other(tmp_path):
    rows, lines = trees.content(1)
    trees.write_votes(tmp_path / 'fer2013new.csv', lines)
    text = (tmp_path / 'fer2013new.csv').read_text().splitlines()
    text[5] = text[5].replace(',0,', ',x,')
    text[7] = text[7][: text[7].rindex(',')]
    text[8] = text[8].replace('Training', 'Validation')
    (tmp_path / 'fer2013new.csv').write_text('\n'.join(text) + '\n')
    fer2013.write_table(tmp_path / 'fer2013.csv', rows)
    table = (tmp_path / 'fer2013.csv').read_text().splitlines()
    table[10] = table[10].replace(',Training', ' 3,Training')
    (tmp_path / 'fer2013.csv').write_text('\n'.join(table) + '\n')
    found = find(tmp_path)
    assert found.skipped[:4] == (
        'row 4: a vote is no number',
        'row 6: 11 cells, not 12',
        "row 7: Usage is 'Validation', none of Training, PublicTest, PrivateTest",
        'row 9: 2305 pixels, not 2304',
    )
    for record in found.records:
        np.testing.assert_array_equal(record.image, rows[int(record.file.split()[1])][2])
    assert len(found.records) == 20


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    rows, lines = trees.content(1)
    trees.write_votes(tmp_path / 'fer2013new.csv', lines)
    fer2013.write_table(tmp_path / 'fer2013.csv', rows[:-1])
    assert 'fer2013new.csv and fer2013.csv have 33 and 32 rows' in refusal(tmp_path)
    fer2013.write_table(tmp_path / 'fer2013.csv', rows[::-1])
    assert 'row 0 is Training and PrivateTest' in refusal(tmp_path)


def test_shuffled_rows_are_noticed_by_their_labels(tmp_path):
    rows, lines = trees.content(5)
    moved = [(label, usage, image) for (label, *_), (_, usage, image) in zip(rows[-2:] + rows, rows, strict=False)]
    trees.write_votes(tmp_path / 'fer2013new.csv', lines)
    fer2013.write_table(tmp_path / 'fer2013.csv', moved)
    assert 'as if shuffled' in refusal(tmp_path)


def test_a_half_of_the_set_alone_is_refused(tmp_path):
    rows, lines = trees.content(1)
    trees.write_votes(tmp_path / 'votes' / 'fer2013new.csv', lines)
    assert 'no fer2013.csv or icml_face_data.csv beside fer2013new.csv' in refusal(tmp_path / 'votes')
    fer2013.write_table(tmp_path / 'pixels' / 'fer2013.csv', rows)
    message = refusal(tmp_path / 'pixels')
    assert 'not FER+: no fer2013new.csv' in message
    assert 'github.com/microsoft/FERPlus' in message


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'line 1: the columns Usage, Image name, neutral'),
        ('Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n', "found 'training, fer0000000.png"),
        (trees.HEADER.replace(',NF', '') + '\n', 'line 1: the columns'),
        (f'{trees.HEADER}\n"{"x" * 200_000}"\n', 'is not CSV'),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, message):
    trees.write(tmp_path, per_class=1)
    (tmp_path / 'FERPlus-master' / 'fer2013new.csv').write_text(text)
    assert message in refusal(tmp_path)


def test_a_list_of_absurd_size_is_not_read(tmp_path, monkeypatch):
    trees.write(tmp_path, per_class=1)
    monkeypatch.setattr(ferplus, '_LARGEST', 100)
    assert 'no list of votes' in refusal(tmp_path)


def test_published_counts_agree_with_each_other():
    totals = {
        split: sum(n for name, n in PUBLISHED.items() if name.startswith(f'{split}/')) for split in SPLITS.values()
    }
    assert totals == {'train': 25060, 'validation': 3199, 'test': 3153}
    assert {name.split('/')[1] for name in PUBLISHED} == set(EXPRESSIONS)


@pytest.mark.parametrize('place', ['FER+', 'FER+/fer2013', 'zzz'])
def test_of_several_tables_that_beside_the_votes_is_joined(tmp_path, place):
    rows, lines = trees.content(1)
    trees.write_votes(tmp_path / 'FER+' / 'fer2013new.csv', lines)
    fer2013.write_table(tmp_path / 'a' / 'deep' / 'fer2013.csv', rows[:5])  # of another set, and first by its path
    fer2013.write_table(tmp_path / place / 'fer2013.csv', rows)
    found = find(tmp_path)
    assert len(found.records) == 24
    assert f'a/deep/fer2013.csv: {place}/fer2013.csv is used instead' in found.skipped


def test_a_table_of_the_other_name_beside_the_votes_is_nearer_than_the_usual_one(tmp_path):
    rows, lines = trees.content(1)
    trees.write_votes(tmp_path / 'FER+' / 'fer2013new.csv', lines)
    fer2013.write_table(tmp_path / 'FER+' / 'icml_face_data.csv', rows)
    fer2013.write_table(tmp_path / 'fer2013.csv', rows[:5])
    assert len(find(tmp_path).records) == 24
