"""SFEW 2.0: two editions and a re-packaged copy, apart from each other and from the sets that look like it."""

import collections

import pytest

from fn2en_jax.data.datasets.fer2013 import PUBLISHED as FER2013_PUBLISHED
from fn2en_jax.data.datasets.sfew import ALIGNED_COUNTS, PUBLISHED, SFEW, SFEW_FRAMES
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import fer2013, sfew

FOLDERS = {
    'Angry': 'anger',
    'Disgust': 'disgust',
    'Fear': 'fear',
    'Happy': 'happiness',
    'Neutral': 'neutral',
    'Sad': 'sadness',
    'Surprise': 'surprise',
}
SPLITS = {'Train': 'train', 'Val': 'validation'}


def refusal(root, dataset=SFEW):
    with pytest.raises(UserError) as caught:
        dataset.find(Tree(root))
    assert '\n' not in str(caught.value)
    return str(caught.value)


def counts(found):
    return collections.Counter(f'{record.split}/{record.label}' for record in found.records)


@pytest.mark.parametrize(('dataset', 'aligned'), [(SFEW, True), (SFEW_FRAMES, False)])
def test_the_folder_is_the_label(tmp_path, dataset, aligned):
    sfew.write(tmp_path / 'SFEW_2', aligned=aligned, per_class=8)
    found = dataset.find(Tree(tmp_path))
    assert len(found.records) == 2 * 7 * 8
    for record in found.records:
        split, folder, name = record.file.split('/')
        assert (record.split, record.label) == (SPLITS[split], FOLDERS[folder])
        assert record.image.parts[-2:] == (folder, name)
        assert record.image.is_file()
        assert (record.subject, record.sequence, record.frame) == ('', '', -1)
    assert {record.image.suffix for record in found.records} == {'.png', '.jpg'}
    assert found.skipped == ('Test: 3 images, whose labels were never published',)


def test_a_base_name_in_two_classes_is_two_images(tmp_path):
    sfew.write(tmp_path, per_class=1)
    found = SFEW.find(Tree(tmp_path))
    names = collections.Counter(record.image.name for record in found.records if record.split == 'validation')
    assert sorted(names.values()) == [1, 1, 1, 1, 1, 2]
    files = [record.file for record in found.records]
    assert len(set(files)) == len(files) == 14


def test_the_published_full_frames(tmp_path):
    numbers = {
        split: {folder: PUBLISHED[f'{name}/{label}'] for folder, label in FOLDERS.items()}
        for split, name in SPLITS.items()
    }
    write_empty(tmp_path, numbers, '')
    found = SFEW_FRAMES.find(Tree(tmp_path))
    assert found.edition == 'full frames, 958 train + 436 validation'
    assert counts(found) == found.expected == PUBLISHED
    assert found.missing == found.skipped == ()


def test_the_published_aligned_faces(tmp_path):
    numbers = {'Train': dict.fromkeys(FOLDERS, 127), 'Val': dict.fromkeys(FOLDERS, 61)}
    numbers['Train']['Angry'] += 2
    numbers['Val']['Happy'] += 4
    write_empty(tmp_path, numbers, '_Aligned_Faces')
    found = SFEW.find(Tree(tmp_path))
    assert (
        found.edition == 'aligned faces, 891 train + 431 validation (the known smaller edition of the 958 + 436 frames)'
    )
    assert found.expected == {}
    assert found.missing == found.surplus == ()
    next((tmp_path / 'Val_Aligned_Faces' / 'Happy').iterdir()).unlink()
    found = SFEW.find(Tree(tmp_path))
    assert found.edition == 'aligned faces, 891 train + 430 validation'
    assert found.missing == ('validation: 1 of 431 images',)


def test_more_aligned_faces_than_published_are_told(tmp_path):
    numbers = {
        split: {folder: PUBLISHED[f'{name}/{label}'] for folder, label in FOLDERS.items()}
        for split, name in SPLITS.items()
    }
    write_empty(tmp_path, numbers, '_Aligned_Faces')
    found = SFEW.find(Tree(tmp_path))
    assert found.surplus == (
        'train: 958 images, 67 more than 891',
        'validation: 436 images, 5 more than 431',
    )
    assert 'if they are not cropped, use sfew_frames' in found.edition
    assert found.missing == ()


def test_aligned_faces_in_the_folders_of_full_frames_are_noticed(tmp_path):
    numbers = {'Train': dict.fromkeys(FOLDERS, 127), 'Val': dict.fromkeys(FOLDERS, 61)}
    numbers['Train']['Angry'] += 2
    numbers['Val']['Happy'] += 4
    write_empty(tmp_path, numbers, '')
    assert 'if they are cropped, use sfew' in SFEW_FRAMES.find(Tree(tmp_path)).edition


def write_empty(root, numbers, suffix):
    """Files of the real numbers without content, since nothing is decoded."""
    seed = 0
    for split, classes in numbers.items():
        for folder, number in classes.items():
            place = root / f'{split}{suffix}' / folder
            place.mkdir(parents=True)
            for _ in range(number):
                seed += 1
                (place / f'{sfew.name(seed)}.png').touch()


def test_what_is_missing_is_named(tmp_path):
    classes = {folder: 1 for folder in FOLDERS if folder != 'Fear'}
    sfew.write(tmp_path, counts={'Train': classes, 'Val': dict.fromkeys(FOLDERS, 1)})
    assert SFEW.find(Tree(tmp_path)).missing == (
        'train/fear: no image',
        'train: 885 of 891 images',
        'validation: 424 of 431 images',
    )


def test_the_archives_own_folders_are_enough(tmp_path):
    for folder in ('Train_Aligned_Faces/Angry', 'Val_Aligned_Faces_new/happy'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / '21_001234567_00000005.PNG').touch()
    assert [record.file for record in SFEW.find(Tree(tmp_path)).records] == [
        'Train/Angry/21_001234567_00000005.PNG',
        'Val/Happy/21_001234567_00000005.PNG',
    ]


def test_copies_and_strange_names_are_reported(tmp_path):
    sfew.write(tmp_path / 'a', per_class=1, tests=0)
    folder = tmp_path / 'b' / 'Train_Aligned_Faces' / 'Angry'
    folder.mkdir(parents=True)
    (folder / f'{sfew.name(0)}.jpg').touch()
    (folder / 'portrait.png').touch()
    place = f'Train_Aligned_Faces/Angry/{sfew.name(0)}'
    found = SFEW.find(Tree(tmp_path))
    assert len(found.records) == 14
    assert found.skipped == (
        'Train/Angry/portrait.png: not named <film>_<time>_<frame>',
        f'b/{place}.jpg: a/Train/{place}.png is used instead',
    )


def test_both_editions_side_by_side_stay_apart(tmp_path):
    sfew.write(tmp_path, aligned=True, per_class=1, tests=1)
    sfew.write(tmp_path, aligned=False, per_class=2, tests=4)
    faces, frames = SFEW.find(Tree(tmp_path)), SFEW_FRAMES.find(Tree(tmp_path))
    assert (len(faces.records), len(frames.records)) == (14, 28)
    assert all('_Aligned_Faces' in str(record.image) for record in faces.records)
    assert not any('_Aligned_Faces' in str(record.image) for record in frames.records)
    assert faces.skipped[-1].startswith('Test: 1 images')
    assert frames.skipped[-1].startswith('Test: 4 images')


def test_the_other_edition_is_named_in_the_refusal(tmp_path):
    sfew.write(tmp_path / 'faces', aligned=True, per_class=1)
    sfew.write(tmp_path / 'frames', aligned=False, per_class=1)
    assert '(the other edition is here: sfew)' in refusal(tmp_path / 'faces', SFEW_FRAMES)
    assert '(the other edition is here: sfew_frames)' in refusal(tmp_path / 'frames', SFEW)


# ------------------------------------------------------------------- the re-packaged copy


def test_the_list_of_the_repackaged_copy(tmp_path):
    sfew.write_list(tmp_path / 'SFEW2.0', per_class=2)
    found = SFEW.find(Tree(tmp_path))
    assert len(found.records) == 28
    assert set(counts(found).values()) == {2}
    assert set(counts(found)) == set(PUBLISHED)
    fourth = found.records[3]
    assert (fourth.file, fourth.label, fourth.split) == ('image_000003.png', 'happiness', 'train')
    assert fourth.image == tmp_path / 'SFEW2.0' / 'sfew2.0_images' / 'image_000003.png'
    assert found.records[14].split == 'validation'
    assert 'another' not in refusal(tmp_path, SFEW_FRAMES)


@pytest.mark.parametrize(
    ('line', 'fault'),
    [
        ('image_000099.png,0,Angry,Train_Aligned_Faces', 'image_000099.png: listed in sfew_2.0_labels.csv and not in'),
        ('../../secret.png,0,Angry,Train_Aligned_Faces', '../../secret.png: listed in sfew_2.0_labels.csv and not in'),
        ('image_000001.png,0,Angry,Train_Aligned_Faces', 'image_000001.png: listed twice'),
        ('extra.png,0,Bored,Train_Aligned_Faces', "extra.png: emotion is 'Bored', none of Angry"),
        ('extra.png,0,Angry,Test_Aligned_Faces', "extra.png: original_split is 'Test_Aligned_Faces', neither"),
        ('extra.png', "extra.png: original_split is '', neither"),
    ],
)
def test_an_unusable_line_of_the_list_is_named(tmp_path, line, fault):
    root = tmp_path / 'a' / 'b'
    sfew.write_list(root)
    (root / 'sfew2.0_images' / 'extra.png').touch()
    (tmp_path / 'secret.png').touch()
    with (root / 'sfew_2.0_labels.csv').open('a') as file:
        file.write(line + '\n')
    found = SFEW.find(Tree(root))
    assert len(found.records) == 14
    (skipped,) = found.skipped
    assert skipped.startswith(fault)


def test_the_list_as_windows_writes_it(tmp_path):
    sfew.write_list(tmp_path)
    text = (tmp_path / 'sfew_2.0_labels.csv').read_text().replace(',', ', ').replace('\n', '\r\n')
    (tmp_path / 'sfew_2.0_labels.csv').write_bytes(text.encode('utf-8-sig'))
    assert len(SFEW.find(Tree(tmp_path)).records) == 14


def test_a_list_of_absurd_size_is_not_read(tmp_path, monkeypatch):
    sfew.write_list(tmp_path)
    monkeypatch.setattr('fn2en_jax.data.datasets.sfew._LARGEST_LIST', 100)
    assert 'no list of SFEW' in refusal(tmp_path)


@pytest.mark.parametrize('text', ['', 'name,class\n', f'image_name,emotion,original_split\n"{"x" * 200_000}"\n'])
def test_a_list_that_is_none_is_refused(tmp_path, text):
    sfew.write_list(tmp_path)
    (tmp_path / 'sfew_2.0_labels.csv').write_text(text)
    assert 'sfew_2.0_labels.csv: ' in refusal(tmp_path)


# ------------------------------------------------------------------- other sets


def test_sfew_1_is_refused_by_name(tmp_path):
    folder = tmp_path / 'SFEW-SPI-Release' / 'Set1' / 'Angry'
    folder.mkdir(parents=True)
    (folder / 'Airheads_000519240_00000005.jpg').touch()
    for dataset in (SFEW, SFEW_FRAMES):
        assert '(this looks like SFEW 1, another set)' in refusal(tmp_path, dataset)


@pytest.mark.parametrize(
    'file',
    [
        'Train/Angry/000046280.avi',
        'Train_Aligned_Faces/000046280/000046280_001_00000005.png',
        'Train_AFEW/Train_Aligned_Faces/Angry/000046280/000046280_001_00000005.jpg',
    ],
)
def test_afew_is_refused_by_name(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    for dataset in (SFEW, SFEW_FRAMES):
        assert '(this looks like AFEW, another set)' in refusal(tmp_path, dataset)


def test_a_face_of_another_name_in_a_class_folder_is_no_video_of_afew(tmp_path):
    (tmp_path / 'Val_Aligned_Faces' / 'Fear').mkdir(parents=True)
    (tmp_path / 'Val_Aligned_Faces' / 'Fear' / 'me.png').touch()
    assert '(Val/Fear/me.png: not named <film>_<time>_<frame>)' in refusal(tmp_path)


def test_anything_else_is_refused(tmp_path):
    fer2013.write(tmp_path / 'fer', 'folders')
    message = refusal(tmp_path / 'fer', SFEW_FRAMES)
    assert 'not named <film>_<time>_<frame>' in message
    assert 'To get it: ' in message
    assert 'edition' not in refusal(tmp_path / 'fer', SFEW)
    (tmp_path / 'empty').mkdir()
    assert 'not SFEW 2.0 (aligned faces): no Train_Aligned_Faces/Angry' in refusal(tmp_path / 'empty')


def test_published_counts_agree_with_each_other():
    totals = {
        split: sum(n for name, n in PUBLISHED.items() if name.startswith(f'{split}/')) for split in ALIGNED_COUNTS
    }
    assert totals == {'train': 958, 'validation': 436}
    assert PUBLISHED['validation/happiness'] == 72 + 1  # the flat copy lost the one whose name is there twice


def test_labels_match_those_of_fer2013():
    """The paper trains on both together."""
    assert {name.split('/')[1] for name in PUBLISHED} == {name.split('/')[1] for name in FER2013_PUBLISHED}
