"""CK+: labelled sequences, their first and last frames, their landmarks."""

import collections
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fn2en_jax.data import landmarks
from fn2en_jax.data.datasets import ckplus_persons
from fn2en_jax.data.datasets.ckplus import CKPLUS
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests import ckplus_folds
from tests.trees import ckplus


def find(root):
    return CKPLUS.find(Tree(root))


def gaps(found):
    """What is missing of the sequences that are there, most of the persons being absent from a small tree."""
    return tuple(name for name in found.missing if '/' in name)


def files(found):
    return [record.file for record in found.records]


@pytest.fixture
def one(tmp_path):
    """A single sequence of eight frames that show surprise."""
    ckplus.write_sequences(tmp_path, {('S005', '001'): 'surprise'}, last=8)
    return tmp_path


def test_the_published_set_is_complete(tmp_path):
    sequences = ckplus.published()
    ckplus.write_sequences(tmp_path, sequences, last=4, landmarks=False, draw=None)
    assert len(sequences) == 593
    assert len({subject for subject, _ in sequences}) == 123
    found = find(tmp_path)
    assert collections.Counter(record.label for record in found.records) == found.expected
    assert (found.missing, found.skipped, found.faces) == ((), (), '')
    assert found.edition == '327 labelled sequences of 118 persons'
    assert len(set(files(found))) == 1308
    six = {record.subject for record in found.records if record.label not in ('contempt', 'neutral')}
    assert len(six) == 106


def test_persons_and_emotions_that_are_absent_are_named(tmp_path):
    """Without the folders of two persons, as without their labels, and with one sequence fewer of a third."""
    sequences = ckplus.published()
    absent = {key for key in sequences if key[0] in ('S010', 'S999')} | {('S011', '014')}
    kept = {key: label for key, label in sequences.items() if key not in absent}
    ckplus.write_sequences(tmp_path, kept, last=4, landmarks=False, draw=None)
    found = find(tmp_path)
    assert sequences['S011', '014'] == 'fear'
    assert len(found.records) == 4 * (327 - 6)
    assert found.missing == (
        'S010 (anger, happiness, surprise)',
        'S011: no sequence labelled fear',
        'S999 (anger, fear)',
    )
    assert found.skipped == ()


def test_the_labelled_persons_are_those_of_the_published_folds():
    pairs = {(person, label) for label, persons in ckplus_persons.LABELLED.items() for person in persons}
    assert pairs == {(person, label) for person, label, _ in ckplus_folds.sequences()}
    assert (len(pairs), len({person for person, _ in pairs})) == (327, 118)


def test_published_counts_agree_with_published_sums(one):
    expected = find(one).expected
    assert sum(expected.values()) == 1308
    assert sum(expected.values()) - expected['neutral'] == 981
    assert sum(expected.values()) - expected['neutral'] - expected['contempt'] == 927
    ck48 = {'anger': 135, 'contempt': 54, 'disgust': 177, 'fear': 75, 'happiness': 207, 'sadness': 84, 'surprise': 249}
    assert expected == ck48 | {'neutral': 327}


def test_first_and_last_three_frames(one):
    found = find(one)
    assert files(found) == [f'S005/001/S005_001_{frame:08}.png' for frame in (1, 6, 7, 8)]
    assert [record.label for record in found.records] == ['neutral', 'surprise', 'surprise', 'surprise']
    assert [record.frame for record in found.records] == [1, 6, 7, 8]
    assert {(record.subject, record.sequence) for record in found.records} == {('S005', 'S005_001')}
    image = one / 'cohn-kanade-images/S005/001/S005_001_00000008.png'
    assert found.records[-1].image == image
    assert np.asarray(Image.open(image)).shape == (48, 64)


def test_every_code_is_its_own_class(tmp_path):
    ckplus.write(tmp_path, subjects=1, landmarks=False, draw=None)
    labels = {record.sequence: record.label for record in find(tmp_path).records if record.label != 'neutral'}
    assert labels == {f'S005_{code:03}': label for label, code in ckplus.CODES.items()}


def test_sequences_without_a_label_or_a_label_folder_are_passed_over(tmp_path):
    ckplus.write(tmp_path, subjects=1, labels=['fear'], draw=None)
    found = find(tmp_path)
    assert {record.sequence for record in found.records} == {'S005_001'}
    assert (gaps(found), found.skipped) == ((), ())


@pytest.mark.parametrize(
    'label_root', ['Emotion', 'Emotion_labels/Emotion', 'Emotion_labels', 'emotion', 'a/b/Emotion']
)
@pytest.mark.parametrize(
    'image_root', ['cohn-kanade-images', 'extended-cohn-kanade-images/cohn-kanade-images', 'x', '.']
)
def test_outer_folders_do_not_matter(tmp_path, label_root, image_root):
    ckplus.write(tmp_path, subjects=2, image_root=image_root, label_root=label_root, draw=None)
    found = find(tmp_path)
    assert len(found.records) == 2 * 7 * 4
    assert found.records[0].file == 'S005/001/S005_001_00000001.png'


def test_images_and_labels_may_come_from_different_archives(tmp_path):
    ckplus.write(tmp_path / 'all', subjects=1)
    for name in ('cohn-kanade-images', 'Emotion', 'Landmarks'):
        shutil.move(tmp_path / 'all' / name, tmp_path / 'unpacked' / name / name)
    unpacked = {folder: f'{folder.name}.zip' for folder in sorted((tmp_path / 'unpacked').iterdir())}
    found = CKPLUS.find(Tree(tmp_path / 'all', unpacked))
    assert len(found.records) == 28
    assert all(record.points for record in found.records)


def test_upper_case_names_are_the_same_names(one):
    path = one / 'cohn-kanade-images/S005/001/S005_001_00000008.png'
    path.rename(path.with_suffix('.PNG'))
    assert files(find(one))[-1] == 'S005/001/S005_001_00000008.png'


def test_landmarks_become_the_five_points(one):
    height, width = 48, 64
    expected = landmarks.five_of_68(ckplus.landmark_points(height, width))
    for record in find(one).records:
        np.testing.assert_allclose(record.points, expected, atol=1e-5)
    assert expected[0] == pytest.approx((0.35 * width, 0.4 * height))


def test_unusable_landmarks_are_named_and_the_image_is_kept(one):
    folder = one / 'Landmarks/S005/001'
    (folder / 'S005_001_00000001_landmarks.txt').write_text('1 2 3')
    (folder / 'S005_001_00000006_landmarks.txt').write_text('<html>')
    (folder / 'S005_001_00000007_landmarks.txt').unlink()
    found = find(one)
    assert [record.points is None for record in found.records] == [True, True, True, False]
    name = 'Landmarks/S005/001/S005_001_0000000'
    assert found.skipped == (
        f'{name}1_landmarks.txt: holds 3 numbers instead of 136',
        f'{name}6_landmarks.txt: holds something else than numbers',
    )


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'holds 0 numbers instead of one'),
        ('1 2', 'holds 2 numbers instead of one'),
        ('happy', 'holds something else than numbers'),
        ('   0.0000000e+00', '0 is no code of an expression (1 to 7)'),
        ('3.5', '3.5 is no code of an expression (1 to 7)'),
        ('8', '8 is no code of an expression (1 to 7)'),
        ('nan', 'holds a number that is not finite'),
    ],
)
def test_a_label_that_cannot_be_read_is_named(tmp_path, text, reason):
    ckplus.write(tmp_path, subjects=2, labels=['fear'], draw=None)
    name = 'Emotion/S005/001/S005_001_00000006_emotion.txt'
    (tmp_path / name).write_text(text)
    found = find(tmp_path)
    assert {record.subject for record in found.records} == {'S010'}
    assert found.skipped == (f'{name}: {reason}',)


def test_missing_frames_are_named_one_by_one(one):
    for frame in (1, 7):
        (one / f'cohn-kanade-images/S005/001/S005_001_{frame:08}.png').unlink()
    found = find(one)
    assert [record.frame for record in found.records] == [6, 8]
    assert gaps(found) == ('S005/001/S005_001_00000001.png', 'S005/001/S005_001_00000007.png')


def test_a_sequence_cut_short_is_told_by_its_label(one):
    """The label is named after the peak: with that frame gone, the one before it does not become the last."""
    for frame in (6, 7, 8):
        (one / f'cohn-kanade-images/S005/001/S005_001_{frame:08}.png').unlink()
    found = find(one)
    assert [record.frame for record in found.records] == [1]
    assert len(gaps(found)) == 3


def test_a_label_without_images_is_missing_images(tmp_path):
    ckplus.write(tmp_path, subjects=2, labels=['fear'], draw=None)
    shutil.rmtree(tmp_path / 'cohn-kanade-images/S005')
    assert gaps(find(tmp_path)) == ('S005/001: its label is there, its images are not',)


def test_gaps_in_the_middle_of_a_sequence_do_not_matter(one):
    (one / 'cohn-kanade-images/S005/001/S005_001_00000003.png').unlink()
    found = find(one)
    assert [record.frame for record in found.records] == [1, 6, 7, 8]
    assert gaps(found) == ()


def test_originals_are_preferred_to_a_crop_of_the_same_names(one):
    shutil.copytree(one / 'cohn-kanade-images', one / 'a_cropped')
    found = find(one)
    assert len(found.records) == 4
    assert all('cohn-kanade-images' in str(record.image) for record in found.records)


def test_a_second_copy_of_labels_is_named(one):
    shutil.copytree(one / 'Emotion', one / 'Emotion_labels')
    found = find(one)
    assert len(found.records) == 4
    name = 'S005/001/S005_001_00000008_emotion.txt'
    assert found.skipped == (f'Emotion_labels/{name}: Emotion/{name} is used instead',)


def test_ck48_is_refused_by_name(tmp_path):
    folder = tmp_path / 'CK+48'
    for label in ('anger', 'happy'):
        (folder / label).mkdir(parents=True)
        (folder / label / 'S010_004_00000017.png').touch()
    with pytest.raises(UserError, match=r'CK\+48 \(2 images.*not person-independent') as caught:
        find(tmp_path)
    assert '\n' not in str(caught.value)


def test_ck48_beside_the_set_does_not_matter(one):
    (one / 'CK+48/anger').mkdir(parents=True)
    (one / 'CK+48/anger/S010_004_00000017.png').touch()
    assert len(find(one).records) == 4


@pytest.mark.parametrize(
    ('gone', 'looked_for'),
    [('cohn-kanade-images', 'S005_001_00000001.png'), ('Emotion', 'S005_001_00000011_emotion.txt')],
)
def test_a_folder_without_images_or_labels_is_refused(one, gone, looked_for):
    shutil.rmtree(one / gone)
    with pytest.raises(UserError, match=rf'not CK\+: no .*{re.escape(looked_for)}') as caught:
        find(one)
    assert 'pitt.edu' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_labels_none_of_which_can_be_read_are_no_ckplus(one):
    (one / 'Emotion/S005/001/S005_001_00000008_emotion.txt').write_text('surprise')
    with pytest.raises(UserError, match='holds something else than numbers'):
        find(one)
