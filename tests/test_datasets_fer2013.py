"""FER2013: one set of pixels in three forms, and rows that cannot be used."""

import collections

import numpy as np
import pytest

from fn2en_jax.data.datasets.fer2013 import FER2013, PUBLISHED, PUBLISHED_FOLDERS
from fn2en_jax.data.records import EXPRESSIONS, Tree
from fn2en_jax.errors import UserError
from tests.trees import fer2013, sfew

SPLITS = {'Training': 'train', 'PublicTest': 'validation', 'PrivateTest': 'test'}
PIXELS = ' '.join(['7'] * 2304)


def find(root):
    return FER2013.find(Tree(root))


def counts(found):
    return collections.Counter(f'{record.split}/{record.label}' for record in found.records)


@pytest.mark.parametrize('edition', ['fer2013.csv', 'icml_face_data.csv'])
def test_tables(tmp_path, edition):
    content = fer2013.write(tmp_path, edition)
    found = find(tmp_path)
    assert found.edition == edition
    assert found.skipped == found.missing == ()
    assert len(found.records) == len(content) == 42
    for number, (record, (label, usage, image)) in enumerate(zip(found.records, content, strict=True)):
        assert (record.label, record.split, record.file) == (label, SPLITS[usage], f'row {number} {usage}')
        assert record.image.dtype == np.uint8
        np.testing.assert_array_equal(record.image, image)
        assert (record.subject, record.sequence, record.folds, record.frame) == ('', '', '', -1)


def test_quotation_marks_byte_order_mark_and_crlf(tmp_path):
    content = list(fer2013.rows(1))
    fer2013.write_quoted(tmp_path / 'FER2013.CSV', content)
    found = find(tmp_path)
    assert [record.label for record in found.records] == [label for label, *_ in content]
    np.testing.assert_array_equal(found.records[-1].image, content[-1][2])


def test_of_two_tables_the_first_is_taken_once(tmp_path):
    fer2013.write(tmp_path, 'icml_face_data.csv', outer='')
    fer2013.write(tmp_path, per_class=1)
    fer2013.write(tmp_path, 'folders')
    found = find(tmp_path)
    assert (found.edition, len(found.records)) == ('fer2013.csv', 21)


@pytest.mark.parametrize(
    ('line', 'fault'),
    [
        (f'3,{PIXELS} 7,Training', '2305 pixels, not 2304'),
        (f'3,{PIXELS[:-2]},Training', '2303 pixels, not 2304'),
        ('3,,Training', '0 pixels, not 2304'),
        (f'3,{PIXELS[:-1]}256,Training', 'a pixel is 256, more than 255'),
        (f'3,{PIXELS[:-1]}{"9" * 40},Training', 'a pixel is 9223372036854775807, more than 255'),
        (f'3,{PIXELS[:-2]} -7,Training', 'pixels hold something else than whole numbers'),
        (f'3,{PIXELS[:-1]}7.0,Training', 'pixels hold something else than whole numbers'),
        (f'3,{PIXELS[:-1]}é,Training', 'pixels hold something else than whole numbers'),
        (f'7,{PIXELS},Training', "emotion is '7', none of 0 ... 6"),
        (f'-1,{PIXELS},Training', "emotion is '-1', none of 0 ... 6"),
        (f',{PIXELS},Training', "emotion is '', none of 0 ... 6"),
        (f'3,{PIXELS},Test', "Usage is 'Test', none of Training, PublicTest, PrivateTest"),
        (f'3,{PIXELS}', '2 cells, not 3'),
        (f'3,{PIXELS},Training,', '4 cells, not 3'),
        (f'3,{"7 " * 100_000},Training', '2 cells, not 3'),  # what is beyond the longest line is not kept
    ],
)
def test_an_unusable_row_is_named_and_the_others_stay(tmp_path, line, fault):
    content = list(fer2013.rows(1))
    fer2013.write_table(tmp_path / 'fer2013.csv', content)
    with (tmp_path / 'fer2013.csv').open('a', encoding='utf-8') as file:
        file.write(f'{line}\n\n3,{PIXELS},PrivateTest')
    found = find(tmp_path)
    assert found.skipped == (f'fer2013.csv row 21: {fault}',)
    assert len(found.records) == 22
    assert found.records[-1].file == 'row 22 PrivateTest'
    assert (found.records[-1].image == 7).all()


def test_near_misses_are_accepted(tmp_path):
    text = f'Usage ,emotion,note, PIXELS\n PublicTest ," 3 ",x,"  {PIXELS.replace(" ", "  ")} "\n'
    (tmp_path / 'fer2013.csv').write_text(text)
    (record,) = find(tmp_path).records
    assert (record.label, record.split) == ('happiness', 'validation')
    assert (record.image == 7).all()


@pytest.mark.parametrize('told_apart', [True, False])
def test_folders(tmp_path, told_apart):
    content = list(fer2013.rows(2))
    fer2013.write_folders(tmp_path / 'archive', content, told_apart=told_apart)
    fer2013.write_strays(tmp_path)
    found = find(tmp_path)
    splits = SPLITS if told_apart else SPLITS | {'PublicTest': 'test'}
    assert counts(found) == collections.Counter(f'{splits[usage]}/{label}' for label, usage, _ in content)
    assert found.expected == (PUBLISHED if told_apart else PUBLISHED_FOLDERS)
    assert found.skipped == found.missing == ()
    assert ('together' in found.edition) == (not told_apart)
    files = {record.file for record in found.records}
    assert ('test/fear/PublicTest_16.jpg' if told_apart else 'test/fear/im16.jpg') in files
    assert ('test/disgust/PublicTest_15.JPG' if told_apart else 'test/disgust/im15.JPG') in files
    assert len(files) == 42
    assert all(record.image.is_file() for record in found.records)


def test_folders_with_copies_strange_names_and_an_empty_class(tmp_path):
    content = [row for row in fer2013.rows(1) if row[:2] != ('disgust', 'Training')]
    fer2013.write_folders(tmp_path / 'a', content)
    (tmp_path / 'b' / 'Train' / 'Angry').mkdir(parents=True)
    (tmp_path / 'b' / 'Train' / 'Angry' / 'Training_0.JPG').write_bytes(b'x')
    (tmp_path / 'b' / 'Train' / 'Angry' / 'selfie.jpg').write_bytes(b'x')
    found = find(tmp_path)
    assert len(found.records) == 20
    assert found.missing == ('train/disgust: no image',)
    assert found.skipped == (
        'Train/Angry/selfie.jpg: not named like an image of FER2013',
        f'b/Train/Angry/Training_0.JPG: a/train/{fer2013.FOLDERS["anger"]}/Training_0.JPG is used instead',
    )


def test_the_name_says_more_than_the_folder(tmp_path):
    (tmp_path / 'train' / 'sad').mkdir(parents=True)
    for name in ('PrivateTest_1', 'publictest_2', 'Training_3', '4', 'im5'):
        (tmp_path / 'train' / 'sad' / f'{name}.png').write_bytes(b'x')
    splits = {record.file.split('/')[-1]: record.split for record in find(tmp_path).records}
    assert splits == {
        'PrivateTest_1.png': 'test',
        'publictest_2.png': 'validation',
        'Training_3.png': 'train',
        '4.png': 'train',
        'im5.png': 'train',
    }


def refusal(root):
    with pytest.raises(UserError) as caught:
        find(root)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_another_set_is_refused(tmp_path):
    sfew.write(tmp_path / 'sfew', aligned=False, per_class=1)
    assert 'not FER2013: no image in a table or folders of FER2013' in refusal(tmp_path / 'sfew')
    (tmp_path / 'empty').mkdir()
    message = refusal(tmp_path / 'empty')
    assert 'expected there: fer2013.csv or icml_face_data.csv' in message
    assert 'kaggle.com' in message


def test_the_competitions_other_tables_are_no_fer2013(tmp_path):
    fer2013.write_strays(tmp_path)
    assert 'train.csv and test.csv lack the labels' in refusal(tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "line 1: the columns emotion, pixels, Usage are expected, found ''"),
        (f'3,{PIXELS},Training\n', "are expected, found '3, 7 7"),
        ('emotion;pixels;Usage\n', "found 'emotion;pixels;usage'"),
        (f'emotion,pixels,Usage\n8,{PIXELS},Training\n', "(1 could not be used: fer2013.csv row 0: emotion is '8'"),
    ],
)
def test_a_table_without_a_usable_row_is_refused(tmp_path, text, message):
    (tmp_path / 'fer2013.csv').write_text(text)
    assert message in refusal(tmp_path)


def total(expected, start):
    return sum(count for name, count in expected.items() if name.startswith(start))


def test_published_counts_agree_with_each_other():
    assert [total(PUBLISHED, f'{split}/') for split in ('train', 'validation', 'test')] == [28709, 3589, 3589]
    both = {'anger': 958, 'disgust': 111, 'fear': 1024, 'happiness': 1774, 'sadness': 1247, 'surprise': 831}
    assert {name: PUBLISHED_FOLDERS[f'test/{name}'] for name in (*both, 'neutral')} == both | {'neutral': 1233}
    assert total(PUBLISHED_FOLDERS, 'test/') == 7178
    assert {name.split('/')[1] for name in PUBLISHED} == set(EXPRESSIONS) - {'contempt'}
