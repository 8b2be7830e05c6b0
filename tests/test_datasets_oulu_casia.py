"""Oulu-CASIA: the strong light of the visible part, first and last frames, two kinds of trees."""

import collections
import shutil

import pytest

from fn2en_jax.data.datasets.oulu_casia import OULU_CASIA
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import oulu_casia


def find(root):
    return OULU_CASIA.find(Tree(root))


def counts(found):
    return collections.Counter(record.label for record in found.records)


def test_the_published_set_is_complete(tmp_path):
    oulu_casia.write(tmp_path, subjects=80, frames=4, draw=None)
    found = find(tmp_path)
    assert counts(found) == found.expected
    assert sum(found.expected.values()) - found.expected['neutral'] == 1440
    assert found.expected['neutral'] == 480
    assert (found.missing, found.skipped, found.faces) == ((), (), '')
    assert found.edition == 'original images, 480 sequences'
    assert len({record.file for record in found.records}) == 1920


def test_the_edition_that_lacks_a_sequence_is_named_and_no_reason_to_warn(tmp_path):
    oulu_casia.write(tmp_path, subjects=80, frames=4, without=['P012/Fear'], draw=None)
    found = find(tmp_path)
    assert found.edition == 'original images, 479 sequences (a known smaller edition, without P012/Fear)'
    assert counts(found) == found.expected
    assert found.expected['fear'] == 237
    assert found.missing == ()


def test_more_missing_sequences_are_named(tmp_path):
    oulu_casia.write(tmp_path, subjects=80, frames=4, without=['P012/Fear', 'P003/Anger'], draw=None)
    found = find(tmp_path)
    assert found.missing == ('P003/Anger', 'P012/Fear')
    assert found.expected['fear'] == 240
    assert found.edition == 'original images, 478 sequences'


def test_sequences_that_are_too_short_are_named(tmp_path):
    """Besides the one that the smaller edition lacks."""
    oulu_casia.write(tmp_path, subjects=80, frames=4, without=['P012/Fear'], draw=None)
    for name, frames in {'P003/Anger': 2, 'P004/Fear': 3, 'P010/Surprise': 1}.items():
        for frame in range(frames, 4):
            (tmp_path / oulu_casia.ORIGINAL / 'Strong' / name / f'{frame:03}.jpeg').unlink()
    assert find(tmp_path).missing == ('P003/Anger: 2 frames', 'P004/Fear: 3 frames', 'P010/Surprise: 1 frame')


def test_first_and_last_three_frames(tmp_path):
    oulu_casia.write(tmp_path, subjects=1)
    records = [record for record in find(tmp_path).records if record.sequence == 'P001_Happiness']
    assert [record.file for record in records] == [f'P001/Happiness/{frame:03}.jpeg' for frame in (0, 9, 10, 11)]
    assert [record.label for record in records] == ['neutral', 'happiness', 'happiness', 'happiness']
    assert [record.frame for record in records] == [0, 9, 10, 11]
    assert {record.subject for record in records} == {'P001'}
    assert records[0].image == tmp_path / oulu_casia.ORIGINAL / 'Strong/P001/Happiness/000.jpeg'


@pytest.mark.parametrize('name', ['FirstF_{:03}.jpeg', '{}.jpeg', 'img{}.JPG', 'P001_Anger_{}.jpeg'])
def test_frames_are_put_in_order_by_their_numbers(tmp_path, name):
    oulu_casia.write(tmp_path, subjects=1, frames=12, name=name, draw=None)
    frames = [record.frame for record in find(tmp_path).records if record.sequence == 'P001_Anger']
    assert frames == [0, 9, 10, 11]


def test_gaps_in_the_numbering_do_not_matter(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, draw=None)
    for frame in (0, 10):
        (tmp_path / oulu_casia.ORIGINAL / f'Strong/P001/Anger/{frame:03}.jpeg').unlink()
    frames = [record.frame for record in find(tmp_path).records if record.sequence == 'P001_Anger']
    assert frames == [1, 8, 9, 11]


def test_a_sequence_of_three_frames_has_no_neutral_one(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, frames=3, draw=None)
    assert set(counts(find(tmp_path)).values()) == {3}
    assert 'neutral' not in counts(find(tmp_path))


@pytest.mark.parametrize(
    'place',
    [
        'OriginalImg/VL',
        'B_OriginalImg/OriginalImg/VL',
        'B_OriginalImg/B_OriginalImg/OriginalImg/VL',
        'B_OriginalImg/VL',
        'VL',
    ],
)
def test_outer_folders_do_not_matter(tmp_path, place):
    oulu_casia.write(tmp_path, subjects=2, place=place, draw=None)
    found = find(tmp_path)
    assert len(found.records) == 2 * 6 * 4
    assert found.records[0].file == 'P001/Anger/000.jpeg'
    assert found.faces == ''


@pytest.mark.parametrize('parent', ['PreProcessImg', 'PreProcess_Img', 'PreProcess', 'B_PreProcess/PreProcess'])
def test_cropped_faces_need_no_alignment(tmp_path, parent):
    oulu_casia.write(tmp_path, subjects=80, frames=4, place=f'{parent}/VL_Acropped', draw=None)
    found = find(tmp_path)
    assert (found.edition, found.faces) == ("distributor's crop, 480 sequences", 'none')
    assert counts(found) == found.expected


def test_originals_are_preferred_to_cropped_faces(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, place=oulu_casia.CROPPED, draw=None)
    oulu_casia.write(tmp_path, subjects=1, draw=None)
    found = find(tmp_path)
    assert len(found.records) == 24
    assert found.edition.startswith('original images')
    assert all('VL_Acropped' not in str(record.image) for record in found.records)


def test_other_lights_and_the_infra_red_part_are_not_this_set(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, draw=None)
    assert all('VL/Strong' in str(record.image) for record in find(tmp_path).records)
    shutil.rmtree(tmp_path / 'B_OriginalImg')
    with pytest.raises(UserError, match=r'no VL/Strong/P001/Anger/000\.jpeg') as caught:
        find(tmp_path)
    assert 'University of Oulu' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_copies_and_names_without_a_number_are_named(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, draw=None)
    folder = tmp_path / oulu_casia.ORIGINAL / 'Strong/P001/Anger'
    (folder / 'thumb.jpeg').touch()
    (folder / '011.jpg').touch()
    found = find(tmp_path)
    assert len(found.records) == 24
    prefix = f'{oulu_casia.ORIGINAL}/Strong/P001/Anger'
    assert set(found.skipped) == {
        f'{prefix}/thumb.jpeg: no number of a frame in its name',
        f'{prefix}/011.jpg: {prefix}/011.jpeg is used instead',
    }
