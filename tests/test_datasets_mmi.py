"""MMI: sessions with metadata, views, the rotated clips, and where a peak is."""

import collections
import os
import shutil

import numpy as np
import pytest

from fn2en_jax.data import folds, protocols
from fn2en_jax.data.datasets.mmi import MMI
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests import mmi_folds
from tests.trees import mmi

PUBLISHED = {'anger': 33, 'disgust': 32, 'fear': 29, 'happiness': 44, 'sadness': 32, 'surprise': 43}


def find(root):
    return MMI.find(Tree(root))


def frames(found, sequence='S001-001'):
    return [record.frame for record in found.records if record.sequence == sequence]


def level(frame):
    """A grey picture that is dark at the top and as bright as its number below."""
    image = np.full((48, 64), 100 + 10 * frame, np.uint8)
    image[:24] = 0
    return image


@pytest.fixture
def sessions(tmp_path):
    """Writes a single session."""

    def write(**knobs):
        return mmi.write_session(tmp_path, 1713, 'S001-001', knobs.pop('emotion', 4), draw=level, **knobs)

    return write


def test_published_counts_agree_with_published_sums(sessions, tmp_path):
    sessions()
    expected = find(tmp_path).expected
    assert expected == {label: 3 * count for label, count in PUBLISHED.items()} | {'neutral': 213}
    assert sum(PUBLISHED.values()) == 213


def test_the_published_set_is_complete(tmp_path):
    """213 clips of 32 persons; who shows what is made up, and one clip's file stands for all."""
    labels = [label for label, count in PUBLISHED.items() for _ in range(count)]
    clips = {f'S{place % 32 + 1:03}-{place // 32 + 1:03}': label for place, label in enumerate(labels)}
    found = find(write_quickly(tmp_path, clips))
    assert collections.Counter(record.label for record in found.records) == found.expected
    assert (found.missing, found.skipped, found.faces) == ((), (), '')
    assert found.edition == '213 clips of 32 persons'
    assert len({record.file for record in found.records}) == 852


def test_first_frame_and_three_middle_ones(sessions, tmp_path):
    folder = sessions()
    found = find(tmp_path)
    assert [record.file for record in found.records] == [f'1713/S001-001.avi/{index:03}' for index in (0, 5, 6, 7)]
    assert [record.label for record in found.records] == ['neutral', 'happiness', 'happiness', 'happiness']
    assert frames(found) == [0, 5, 6, 7]
    assert {record.subject for record in found.records} == {'S001'}
    assert {record.image.path for record in found.records} == {folder / 'S001-001.avi'}


def test_every_code_is_its_own_class(tmp_path):
    mmi.write(tmp_path, subjects=1, frames=4)
    found = find(tmp_path)
    labels = {record.sequence: record.label for record in found.records if record.label != 'neutral'}
    assert labels == {f'S001-{code:03}': label for label, code in mmi.CODES.items()}
    assert (found.missing, found.skipped) == ((), ())


@pytest.mark.parametrize(('view', 'coded', 'turns'), [('0', False, 1), ('0', True, 0), ('2', False, 0), ('2', True, 0)])
def test_frontal_clips_that_nobody_coded_are_turned_upright(sessions, tmp_path, view, coded, turns):
    sessions(view=view, coded=coded)
    record = find(tmp_path).records[2]
    assert record.image.quarter_turns == turns
    image = record.image.read()
    assert image.shape == (48, 64, 3)
    assert image[:16].max() < 40
    assert abs(int(image[40:].mean()) - (100 + 10 * record.frame)) < 5


def test_profile_views_are_counted_and_not_used(sessions, tmp_path):
    sessions(view='1')
    mmi.write_session(tmp_path, 1, 'S002-001', 1)
    found = find(tmp_path)
    assert {record.subject for record in found.records} == {'S002'}
    assert found.edition == '1 clips of 1 persons, without 1 profile views'
    assert found.skipped == ()


def test_the_view_is_that_of_the_track_of_the_clip(sessions, tmp_path):
    folder = sessions()
    tracks = '<track filename="other.avi" view="1"/><track filename="s001-001.AVI" view="2"/>'
    (folder / 'session.xml').write_text(f'<session>{tracks}</session>')
    assert find(tmp_path).records[0].image.quarter_turns == 0


@pytest.mark.parametrize(
    ('units', 'expected'),
    [
        ({'12': [(1, 0), (3, 1), (5, 2), (9, 3), (11, 0)]}, [4, 5, 6]),  # apex from 5 to 8, counted from 1
        ({'12': [(2, 2), (6, 3)], '25': [(5, 2), (12, 3)]}, [3, 4, 5]),  # both at their apex in 5 only
        ({'12': [(2, 2), (4, 3), (7, 2), (12, 3)]}, [7, 8, 9]),  # the longer of two
        ({'12': [(8, 2)]}, [8, 9, 10]),  # lasts until the end of the clip
        ({'12': [(5, 2), (20, 3)]}, [6, 7, 8]),  # an end beyond the clip
        ({'12': [(12, 2)]}, [9, 10, 11]),  # the last frame: the three end there
        ({'12': [(1, 2), (2, 3)]}, [1, 2, 3]),  # the first frame is neutral
        ({'12': [(9, 3), (5, 2), (3, 1)]}, [4, 5, 6]),  # in any order
    ],
)
def test_the_peak_of_a_coded_clip_is_its_apex(sessions, tmp_path, units, expected):
    folder = sessions(coded=True)
    (folder / 'S001-001-oao_aucs.xml').write_text(mmi.phases(units))
    found = find(tmp_path)
    assert frames(found)[1:] == expected
    assert found.skipped == ()


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (mmi.phases({'12': [(3, 1), (9, 3)]}), 'no apex is marked in it'),
        (mmi.phases({'12': [(400, 2), (500, 3)]}), 'no apex is marked in it'),
        ('<ActionUnit><Marker Frame="-5" Type="2"/></ActionUnit>', 'no apex is marked in it'),
        ('nothing', 'S001-001-oao_aucs.xml is no XML'),
    ],
)
def test_without_a_usable_apex_the_middle_is_taken_and_said(sessions, tmp_path, text, reason):
    folder = sessions(coded=True)
    (folder / 'S001-001-oao_aucs.xml').write_text(text)
    found = find(tmp_path)
    assert frames(found) == [0, 5, 6, 7]
    assert found.records[0].image.quarter_turns == 0
    (entry,) = found.skipped
    assert 'the middle frames are taken' in entry
    assert reason in entry


@pytest.mark.parametrize(
    'text', ['clip,frame\nS001-001,2\nS001-001,3\nS001-001,4\n', 'S001_001_003.png\nS001_001_002.png\nS001_001_004.png']
)
def test_the_users_peaks_come_first(sessions, tmp_path, text):
    sessions(coded=True)
    (tmp_path / mmi.OUTER / 'peaks.csv').write_text(text)
    found = find(tmp_path)
    assert frames(found) == [0, 2, 3, 4]
    assert (found.missing, found.skipped) == ((), ())


@pytest.mark.parametrize(
    ('listed', 'expected'),
    [
        ((5,), [4, 5, 6]),
        ((5, 5), [4, 5, 6]),
        ((1,), [1, 2, 3]),  # the first frame is neutral
        ((11,), [9, 10, 11]),  # the last
        ((5, 7), [5, 7]),
        ((2, 3, 9, 10), [2, 3, 9, 10]),
    ],
)
@pytest.mark.parametrize('coded', [False, True])
def test_a_single_frame_stands_for_the_peak_and_several_for_themselves(sessions, tmp_path, coded, listed, expected):
    sessions(coded=coded)
    (tmp_path / 'clips.csv').write_text(''.join(f'S001-001,{frame}\n' for frame in listed))
    found = find(tmp_path)
    assert frames(found)[1:] == expected
    assert (found.missing, found.skipped) == ((), ())


def test_frames_of_peaks_csv_that_a_clip_has_not_are_named(sessions, tmp_path):
    sessions()
    (tmp_path / 'peaks.csv').write_text('clip,frame\nS001-001,12\nS001-001,4\nS001-001,0\nS009-009,3\n\n')
    found = find(tmp_path)
    assert frames(found) == [0, 4]
    assert found.missing == ('S009-009, which peaks.csv names',)
    assert found.skipped == (
        'S001-001 has no frame 0 that could be a peak, as listed',
        'S001-001 has no frame 12 that could be a peak, as listed',
    )


def write_quickly(root, clips):
    """Writes sessions of clips {name: label}; one clip's file stands for all."""
    clip = root / 'clip'
    mmi.write_clip(clip.with_suffix('.avi'), [level(frame) for frame in range(4)])
    for position, (name, label) in enumerate(clips.items()):
        folder = root / 'sets/Sessions' / str(position)
        folder.mkdir(parents=True)
        shutil.copy(clip.with_suffix('.avi'), folder / f'{name}.avi')
        (folder / f'{name}.xml').write_text(f'<M><Metatag Name="Emotion" Value="{mmi.CODES[label]}"/></M>')
        (folder / 'session.xml').write_text('<session><track view="2"/></session>')
    return root / 'sets'


@pytest.fixture(scope='module')
def of_fmpn(tmp_path_factory):
    """The 213 clips; persons, clips and numbers per class are FMPN's, who shows what is made up."""
    names = [clip for _, clip, _ in mmi_folds.clips()]
    labels = [label for label, count in mmi_folds.CLIPS.items() for _ in range(count)]
    left_out = dict(zip(mmi_folds.LEFT_OUT, ('fear', 'happiness', 'happiness', 'surprise', 'surprise'), strict=True))
    shuffled = np.random.default_rng(0).permutation(names)
    return write_quickly(tmp_path_factory.mktemp('mmi'), dict(zip(map(str, shuffled), labels, strict=True)) | left_out)


def as_examples(found):
    records = found.records
    names = tuple(sorted({record.label for record in records}))
    return Examples(
        images=np.zeros((len(records), 1, 1, 1), np.uint8),
        labels=np.array([names.index(record.label) for record in records], np.int32),
        class_names=names,
        subjects=tuple(record.subject for record in records),
        files=tuple(record.file for record in records),
        sequences=tuple(record.sequence for record in records),
        frames=np.array([record.frame for record in records], np.int32),
    )


def fmpn_folds(found):
    """The images that the protocol uses, and its folds of them."""
    chosen = protocols.apply('mmi', as_examples(found), protocols.Choice())
    return chosen, folds.make_folds(chosen, num_folds=10, seed=0, published=True)


def test_the_clips_and_folds_of_fmpn(of_fmpn):
    """Its ten lists, one below the other, are a clips.csv: 208 clips of 31 persons, 624 images, its folds."""
    lines = [f'{clip.replace("-", "_")}_{frame:03}.png' for _, clip, _ in mmi_folds.clips() for frame in (1, 2, 3)]
    (of_fmpn / 'clips.csv').write_text('\n'.join(lines))
    found = find(of_fmpn)
    (of_fmpn / 'clips.csv').unlink()
    assert found.edition == '208 clips of 31 persons, without 5 clips that clips.csv does not name'
    assert found.skipped == (f'5 clips that clips.csv does not name: {", ".join(mmi_folds.LEFT_OUT)}',)
    assert (found.missing, found.expected) == ((), {})
    chosen, made = fmpn_folds(found)
    assert chosen.class_counts() == {label: 3 * count for label, count in mmi_folds.CLIPS.items()}
    assert tuple(len(fold.test) for fold in made) == mmi_folds.IMAGES
    for number, fold in enumerate(made):
        expected = {clip for _, clip, tested in mmi_folds.clips() if tested == number}
        assert {chosen.sequences[i] for i in fold.test} == expected


def test_without_the_list_the_folds_are_others(of_fmpn):
    found = find(of_fmpn)
    assert (found.edition, found.skipped, found.missing) == ('213 clips of 32 persons', (), ())
    chosen, made = fmpn_folds(found)
    assert len(chosen) == 639
    assert tuple(len(fold.test) for fold in made) != mmi_folds.IMAGES


def test_the_published_facts_agree_with_each_other():
    clips = mmi_folds.clips()
    assert len(clips) == len({clip for _, clip, _ in clips}) == sum(mmi_folds.CLIPS.values()) == 208
    assert [3 * sum(fold == k for *_, fold in clips) for k in range(10)] == list(mmi_folds.IMAGES)
    assert protocols.deal([person for person, *_ in clips], 'blocks', 10) == {person: fold for person, _, fold in clips}


def test_clips_csv_restricts_and_peaks_csv_only_places(sessions, tmp_path):
    sessions()
    for number, name in enumerate(('S002-001', 'S002-002', 'S003-001'), 1):
        mmi.write_session(tmp_path, number, name, 1)
    mmi.write_session(tmp_path, 900, 'S003-200', 6, still=True)
    (tmp_path / 'peaks.csv').write_text('S001-001,4\nS002-001,3\nS003-001,4\n')
    assert find(tmp_path).edition == '4 clips and 1 stills of 3 persons'
    (tmp_path / 'clips.csv').write_text('clip,frame\nS001-001\ns002-001.avi,8\nS009-001,1\n')
    found = find(tmp_path)
    assert found.edition == '2 clips of 2 persons, without 3 clips that clips.csv does not name'
    assert frames(found) == [0, 3, 4, 5]  # clips.csv tells no frame: the one of peaks.csv
    assert frames(found, 'S002-001') == [0, 7, 8, 9]  # the frame of clips.csv comes first
    assert found.missing == ('S009-001, which clips.csv names',)
    assert found.skipped == ('3 clips that clips.csv does not name: S002-002, S003-001, S003-200',)


@pytest.mark.parametrize('name', ['clips.csv', 'peaks.csv'])
def test_lists_may_come_from_any_spreadsheet(sessions, tmp_path, name):
    sessions(frames=15)
    mmi.write_session(tmp_path, 1, 'S002-001', 1)
    lines = [
        '\ufeff"clip","frame"',
        'S001-001,2,',
        '"S001-001", "3",,',
        's001-001;4',
        'S001-001.avi\t5',
        "'S001-001',6",
    ]
    (tmp_path / name).write_text('\r\n'.join([*lines, '', ' , ', 'S001_001_007.png,', '"S002-001"']))
    found = find(tmp_path)
    assert frames(found) == [0, 2, 3, 4, 5, 6, 7]
    assert len(frames(found, 'S002-001')) == 4
    assert (found.missing, found.skipped) == ((), ())


@pytest.mark.parametrize('name', ['clips.csv', 'peaks.csv'])
@pytest.mark.parametrize(
    ('line', 'place'),
    [
        ('S01-001', 1),
        ('001-001,4', 1),
        ('S01-001', 2),
        ('S001-001,7,anger', 2),
        ('S001-001,apex', 2),
        ('S001-001,-4', 2),
        ('S001-001,4.5', 2),
        ('S001_001_004.png,4', 2),
        (',4', 2),
        ('clip,frame', 2),
        ('S001-001 4', 2),
    ],
)
def test_a_line_of_a_list_that_cannot_be_read_is_refused(sessions, tmp_path, name, line, place):
    sessions()
    (tmp_path / name).write_text('\n'.join(['S001-001,4'] * (place - 1) + [line, 'S001-001,5']))
    with pytest.raises(UserError, match=rf"{name}: not like 'S042-004,30' or .*png': line {place}: '{line}'$"):
        find(tmp_path)


def test_of_many_lines_that_cannot_be_read_some_are_shown(sessions, tmp_path):
    sessions()
    (tmp_path / 'clips.csv').write_text('clip\n' + 'who\n' * 8 + '"' + 'x' * 200_000)
    with pytest.raises(UserError, match=r"line 2: 'who', .*line 6: 'who' and 4 more$"):
        find(tmp_path)


def test_a_listed_clip_that_cannot_be_used_is_not_called_missing(sessions, tmp_path):
    sessions()
    mmi.write_session(tmp_path, 1, 'S002-001', 9)
    mmi.write_session(tmp_path, 2, 'S002-002', 1, view='1')
    (mmi.write_session(tmp_path, 3, 'S002-003', 1) / 'session.xml').unlink()
    (tmp_path / 'clips.csv').write_text('S001-001\nS002-001\nS002-002\nS002-003\nS002-004\n')
    found = find(tmp_path)
    assert found.missing == ('S002-004, which clips.csv names',)
    assert found.skipped == (
        f'{mmi.OUTER}/Sessions/3/S002-003.avi: the view is unknown: session.xml is missing',
        'S002-001, which clips.csv names, shows no basic emotion',
        'S002-002, which clips.csv names, is a profile view',
    )


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'it is empty'),
        ('clip,frame\n', 'it is empty'),
        ('S009-001,3\n', 'S009-001, which clips.csv names, is not there'),
        ('S009-001\nS002-001\n', 'S002-001, which clips.csv names, shows no basic emotion'),
    ],
)
def test_a_clips_csv_that_leaves_nothing_is_refused(sessions, tmp_path, text, reason):
    sessions()
    mmi.write_session(tmp_path, 1, 'S002-001', 9)
    (tmp_path / 'clips.csv').write_text(text)
    with pytest.raises(UserError, match=rf'clips\.csv names none of the 1 clips that could be used \({reason}\)$'):
        find(tmp_path)


def test_sessions_without_a_basic_emotion_are_passed_over(sessions, tmp_path):
    sessions()
    for number, emotion in enumerate([None, 0, 7, 25]):
        mmi.write_session(tmp_path, number, f'S002-{number:03}', emotion)
    found = find(tmp_path)
    assert len(found.records) == 4
    assert found.skipped == ()


@pytest.mark.parametrize(
    ('name', 'text', 'reason'),
    [
        ('S001-001.xml', None, 'the XML file of the same name is missing'),
        ('S001-001.xml', '<Metadata>', 'S001-001.xml is no XML'),
        ('S001-001.xml', '<M><Metatag Name="Emotion" Value="happy"/></M>', "'happy' is no code of an emotion"),
        ('S001-001.xml', '<!DOCTYPE M [<!ENTITY e "4">]><M/>', 'S001-001.xml declares entities'),
        ('session.xml', None, 'session.xml is missing'),
        ('session.xml', '<session/>', "session.xml says ''"),
        ('session.xml', '<session><track view="5"/></session>', "session.xml says '5'"),
        ('S001-001.avi', 'no clip', 'it is no AVI file'),
        ('S001-001.avi', '#EXTM3U\n#EXTINF:1,\n/etc/hosts\n', 'it is no AVI file'),
        ('S001-001.avi', 'RIFF\x08\0\0\0AVI LIST', 'cannot be opened as a clip'),
    ],
)
def test_sessions_that_cannot_be_read_are_named(sessions, tmp_path, name, text, reason):
    path = sessions() / name
    mmi.write_session(tmp_path, 1, 'S002-001', 1)
    path.unlink()
    if text is not None:
        path.write_text(text)
    found = find(tmp_path)
    assert {record.subject for record in found.records} == {'S002'}
    (entry,) = found.skipped
    assert entry.startswith(f'{mmi.OUTER}/Sessions/1713/S001-001.avi: ')
    assert reason in entry


def test_a_clip_whose_name_is_no_utf_8_is_named(sessions, tmp_path):
    folder = sessions()
    mmi.write_session(tmp_path, 1, 'S002-001', 1)
    for suffix in ('.avi', '.xml'):
        (folder / f'S001-001{suffix}').rename(folder / os.fsdecode(b'S001-001\xe9' + suffix.encode()))
    (entry,) = find(tmp_path).skipped
    assert 'rename it' in entry


def test_a_clip_of_three_frames_is_too_short(sessions, tmp_path):
    sessions(frames=3)
    with pytest.raises(UserError, match='3 frames, too few'):
        find(tmp_path)


def test_a_clip_in_two_sessions_is_used_once(sessions, tmp_path):
    sessions()
    mmi.write_session(tmp_path, 1714, 'S001-001', 4)
    found = find(tmp_path)
    assert len(found.records) == 4
    place = f'{mmi.OUTER}/Sessions'
    assert found.skipped == (f'{place}/1714/S001-001.avi: {place}/1713/S001-001.avi is used instead',)


def test_stills_are_taken_as_they_are(sessions, tmp_path):
    sessions()
    folder = mmi.write_session(tmp_path, 900, 'S003-200', 6, still=True)
    found = find(tmp_path)
    record = found.records[-1]
    assert (record.image, record.file) == (folder / 'S003-200.png', '900/S003-200.png')
    assert (record.label, record.subject, record.sequence, record.frame) == ('surprise', 'S003', '', -1)
    assert found.edition == '1 clips and 1 stills of 2 persons'


def test_the_writer_makes_what_it_says(tmp_path):
    mmi.write(tmp_path, subjects=2, labels=['fear', 'sadness'], coded=True, stills=1)
    found = find(tmp_path)
    assert found.edition == '4 clips and 1 stills of 2 persons'
    assert frames(found) == [0, 4, 5, 6]
    assert found.skipped == ()


def test_another_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / 'clip.avi').touch()
    with pytest.raises(UserError, match=r'not MMI: no Sessions/1/S001-001\.avi') as caught:
        find(tmp_path)
    assert 'mmifacedb' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_sessions_without_any_emotion_are_refused(tmp_path):
    mmi.write(tmp_path, subjects=0)
    with pytest.raises(UserError, match='no clip with an Emotion of 1 to 6'):
        find(tmp_path)
