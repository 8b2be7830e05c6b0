"""The renderer's persons, movements and pictures, and the data set built of them."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fn2en_jax.data import contact_sheet, synthetic, synthetic_persons
from fn2en_jax.data.builders import schema, synthetic_faces

PEOPLE = range(100_000, 100_012)
SMALL = {'persons': 3, 'per_person': 7, 'test_persons': 2, 'test_per_person': 7, 'size': 24}


def moved(who: synthetic_persons.Person, **strengths: float) -> synthetic_persons.Geometry:
    """Geometry under given action units, as in moved(who, au12=1.0)."""
    units = np.zeros((len(synthetic_persons.ACTION_UNITS), 2))
    for name, strength in strengths.items():
        units[synthetic_persons.AU[int(name.removeprefix('au'))]] = strength
    return synthetic_persons.geometry(who, units)


def expressed(who: synthetic_persons.Person, expression: str, variant: int = 0) -> synthetic_persons.Geometry:
    """Geometry of an expression's prototype at full strength, without chance."""
    prototype = synthetic_persons.PROTOTYPES[expression][variant]
    return moved(who, **{f'au{unit}': strength for unit, strength in prototype.items()})


# ------------------------------------------------------------------------------------------------ determinism


def test_same_words_same_bytes_and_order_does_not_matter():
    first = [synthetic.render(3, index, number) for index in (5, 6) for number in (0, 1)]
    synthetic.render(4, 1, 1)
    again = [synthetic.render(3, index, number) for index in (6, 5) for number in (1, 0)][::-1]
    for one, other in zip(first, again, strict=True):
        assert one.tobytes() == other.tobytes()
        assert one.dtype == np.uint8
        assert one.shape == (72, 72, 3)


def test_another_process_draws_the_same_bytes():
    code = (
        'import hashlib; from fn2en_jax.data import synthetic;'
        'print(hashlib.sha256(b"".join(synthetic.render(0, i, i).tobytes() for i in range(3))).hexdigest())'
    )
    here = hashlib.sha256(b''.join(synthetic.render(0, i, i).tobytes() for i in range(3))).hexdigest()
    root = pathlib.Path(synthetic.__file__).parents[2]
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert there.strip() == here


def test_seed_person_and_shot_all_matter():
    base = synthetic.render(0, 1, 2)
    for words in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert np.abs(synthetic.render(*words).astype(float) - base).mean() > 1.0


def test_grey_is_the_luma_of_colour():
    colour = synthetic.render(0, 7, 1, size=48).astype(float)
    grey = synthetic.render(0, 7, 1, size=48, channels=1)
    assert grey.shape == (48, 48, 1)
    # Bytes round down after clipping, so the two may differ by a unit, and more where a channel was clipped.
    unclipped = ((colour > 0) & (colour < 255)).all(-1)
    np.testing.assert_allclose(grey[unclipped, 0], (colour @ (0.299, 0.587, 0.114))[unclipped], atol=1.6)


def test_pictures_use_the_range_of_grey_levels():
    pictures = np.stack([synthetic.render(0, index, 0, size=36) for index in range(40)])
    assert 80 < pictures.mean() < 180
    assert pictures.std() > 35
    assert (pictures == 255).mean() < 0.05
    assert (pictures == 0).mean() < 0.05


@pytest.mark.parametrize('wrong', [{'channels': 2}, {'expression': 'boredom'}])
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match='must be'):
        synthetic.render(0, 0, 0, **wrong)


# ---------------------------------------------------------------------------------------- persons and shots


def test_two_persons_differ_more_than_two_shots_of_one():
    """Same nuisance and expression for everyone, then: another person against another movement of the
    same."""
    expressions = ('happiness', 'anger')
    shots = {e: [synthetic_persons.shot(0, index, 0, e) for index in PEOPLE] for e in expressions}
    plain = shots['happiness'][0].nuisance._replace(glasses_on=False, occluder=(), noise=0.0)

    def picture(number: int, expression: str) -> np.ndarray:
        shot = shots[expression][number]._replace(nuisance=plain)
        return synthetic.draw(synthetic_persons.person(0, PEOPLE[number]), shot, 48).astype(float)

    drawn = {e: [picture(number, e) for number in range(len(PEOPLE))] for e in expressions}
    within = [np.abs(one - other).mean() for one, other in zip(*drawn.values(), strict=True)]
    across = [
        np.abs(drawn[expression][number] - drawn[expression][number - 1]).mean()
        for expression in expressions
        for number in range(len(PEOPLE))
    ]
    assert min(within) > 0.3  # an expression is visible
    assert np.mean(across) > 3 * np.mean(within)  # but small against who it is


def test_persons_have_their_own_resting_face():
    people = [synthetic_persons.person(0, index) for index in PEOPLE]
    for name in ('brow_inner', 'mouth_curve', 'lid_upper', 'mouth_width'):
        assert np.std([getattr(who, name) for who in people]) > 0.005
    assert len({who.gain for who in people}) == len(people)


def test_intensity_reaches_from_faint_to_full_and_follows_no_class():
    shots = [synthetic_persons.shot(0, 100, number, 'happiness') for number in range(60)]
    intensities = [shot.intensity for shot in shots]
    assert min(intensities) < 0.55
    assert max(intensities) > 1.0
    pulled = [shot.movement[synthetic_persons.AU[12]].mean() for shot in shots]
    assert np.corrcoef(intensities, pulled)[0, 1] > 0.4


# ----------------------------------------------------------------------------------- action units, geometry


@pytest.mark.parametrize(
    ('unit', 'field', 'direction'),
    [
        ('au1', 'brow_inner', -1),
        ('au2', 'brow_outer', -1),
        ('au4', 'brow_inner', +1),
        ('au5', 'lid_upper', +1),
        ('au7', 'lid_lower', -1),
        ('au6', 'cheek', +1),
        ('au9', 'nose_lift', -1),
        ('au10', 'lip_upper_lift', +1),
        ('au12', 'corner', -1),
        ('au15', 'corner', +1),
        ('au17', 'mouth_shift', -1),
        ('au20', 'mouth_width', +1),
        ('au23', 'lip_scale', -1),
        ('au25', 'open_lower', +1),
        ('au26', 'jaw', +1),
        ('au43', 'lid_upper', -1),
    ],
)
def test_action_units_move_features_their_way_in_everybody(unit, field, direction):
    """Heights grow downwards: -1 is up for brows, nose and corners; lids and openings grow as they open."""
    for index in PEOPLE:
        who = synthetic_persons.person(0, index)
        change = np.subtract(getattr(moved(who, **{unit: 1.0}), field), getattr(moved(who), field))
        assert np.all(change * direction > 0.003), (index, change)


def test_left_and_right_move_apart():
    who = synthetic_persons.person(0, 1)
    units = np.zeros((len(synthetic_persons.ACTION_UNITS), 2))
    units[synthetic_persons.AU[12], 1] = 1.0
    left, right = synthetic_persons.geometry(who, units).corner
    assert left == pytest.approx(who.mouth_curve)
    assert right < left - 0.05


def test_expressions_look_like_their_names():
    for index in PEOPLE:
        who = synthetic_persons.person(0, index)
        rest = moved(who)
        face = {expression: expressed(who, expression) for expression in synthetic_persons.EXPRESSIONS}
        assert face['neutral'] == rest
        assert face['happiness'].corner < rest.corner < face['sadness'].corner
        assert face['happiness'].cheek > rest.cheek
        assert face['surprise'].brow_inner < rest.brow_inner < face['anger'].brow_inner
        assert face['surprise'].jaw > rest.jaw
        assert face['surprise'].lid_upper > rest.lid_upper
        assert face['sadness'].brow_inner < rest.brow_inner
        assert face['sadness'].frown > rest.frown
        assert face['fear'].mouth_width > rest.mouth_width
        assert face['fear'].lid_upper > rest.lid_upper
        assert face['disgust'].nose_wrinkle > 0.5
        assert face['disgust'].nose_lift < rest.nose_lift
        assert face['anger'].lip_scale < rest.lip_scale
        assert face['anger'].brow_pinch > rest.brow_pinch


def test_corners_of_the_mouth_are_drawn_where_the_geometry_says():
    """The smile is in the pixels too: a dark mouth line rises at the corners when geometry lifts them."""
    who = dataclasses.replace(
        synthetic_persons.person(0, 3), beard='none', glasses='none', mouth_curve=0.0, freckles=0.0
    )
    shot = synthetic_persons.shot(0, 3, 0, 'neutral', who)
    still = shot.nuisance._replace(
        roll=0.0,
        yaw=0.0,
        pitch=0.0,
        shift=(0.0, 0.0),
        scale=1.0,
        light=(0.0, 0.0, 1.0),
        blur=0.0,
        noise=0.0,
        occluder=(),
    )

    def darkest_row(strengths: dict[str, float]) -> float:
        face = moved(who, **strengths)
        picture = synthetic.draw(who, shot._replace(geometry=face, nuisance=still), 220).astype(float).sum(-1)
        canvas = synthetic._Canvas(still, 220)
        row, column = (value / 2 for value in canvas.project(0.85 * who.mouth_width, who.mouth_y))
        strip = picture[int(row) - 22 : int(row) + 22, int(column) - 1 : int(column) + 2].mean(1)
        return int(row) - 22 + float(np.argmin(strip))

    assert darkest_row({'au12': 1.0}) < darkest_row({}) - 4 < darkest_row({'au15': 1.0}) - 8


def test_surface_grid_and_projection_are_inverse():
    seen = synthetic_persons.shot(0, 9, 0).nuisance._replace(
        yaw=0.3, pitch=-0.15, roll=0.2, scale=0.95, shift=(0.05, -0.03)
    )
    canvas = synthetic._Canvas(seen, 100)
    for x, y in ((0.0, 0.0), (0.35, -0.1), (-0.3, 0.5)):
        row, column = canvas.project(x, y)
        assert canvas.x[int(row), int(column)] == pytest.approx(x, abs=1.5 * canvas.pixel)
        assert canvas.y[int(row), int(column)] == pytest.approx(y, abs=1.5 * canvas.pixel)


# ---------------------------------------------------------------------------------------------- the data set


def test_kinds_and_splits_share_no_person():
    identities = synthetic_faces.builder_config('identities', persons=50, per_person=2).tasks()
    expressions = synthetic_faces.builder_config('expressions').tasks()
    people = [
        {task.person for task in identities},
        {task.person for task in expressions if task.split == 'train'},
        {task.person for task in expressions if task.split == 'test'},
    ]
    assert len(set.union(*people)) == sum(map(len, people))


def test_classes_are_balanced_in_both_parts():
    tasks = synthetic_faces.builder_config('expressions').tasks()
    for split in ('train', 'test'):
        counts = collections.Counter(task.expression for task in tasks if task.split == split)
        assert set(counts) == set(synthetic_persons.EXPRESSIONS)
        assert len(set(counts.values())) == 1
    uneven = synthetic_faces.builder_config('expressions', persons=5, per_person=5).tasks()
    counts = collections.Counter(task.expression for task in uneven if task.split == 'train')
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_field_that_alters_the_pictures_is_in_the_name():
    base = {
        'persons': 9,
        'per_person': 8,
        'test_persons': 7,
        'test_per_person': 6,
        'size': 32,
        'channels': 3,
        'seed': 5,
    }
    names = {synthetic_faces.builder_config('expressions', **base).name}
    for field, value in base.items():
        names.add(
            synthetic_faces.builder_config(
                'expressions', **{**base, field: 1 if field == 'channels' else value + 20}
            ).name
        )
    names.add(synthetic_faces.builder_config('identities', persons=9, per_person=8, size=32, seed=5).name)
    assert len(names) == len(base) + 2


@pytest.mark.parametrize(
    ('kind', 'fields'),
    [
        ('moods', {}),
        ('expressions', {'persons': 0}),
        ('identities', {'test_persons': 4}),
        ('identities', {'persons': synthetic_faces.MAX_PERSONS + 1}),
        ('expressions', {'channels': 4}),
        ('expressions', {'seed': -1}),
    ],
)
def test_impossible_settings_are_refused(kind, fields):
    with pytest.raises(ValueError, match=r'must be|have no test part|need size'):
        synthetic_faces.builder_config(kind, **fields)


def encoded(made: synthetic_faces.SyntheticFaces) -> list[dict]:
    """All examples as they are stored, images still PNG."""
    return list(made.as_data_source(split=schema.SPLIT, decoders={'image': tfds.decode.SkipDecoding()}))


def opened(example: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(example['image'])))


def test_round_trip_through_array_record(tmp_path):
    made = synthetic_faces.builder('expressions', data_dir=tmp_path, **SMALL)
    made.download_and_prepare()
    stored = encoded(made)
    tasks = made.builder_config.tasks()
    assert len(stored) == len(tasks) == 35
    assert len({example['file'] for example in stored}) == 35
    for example, task in zip(stored, tasks, strict=True):
        drawn = synthetic.render(0, task.person, task.shot, task.expression, size=24)
        np.testing.assert_array_equal(opened(example), drawn)
        assert example['label'].decode() == task.expression
        assert example['subject'].decode() == f'person_{task.person:04d}'
        assert example['split'].decode() == task.split
        assert example['fold'] == schema.NO_FOLD
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    synthetic_faces.builder('expressions', data_dir=tmp_path, **SMALL).download_and_prepare()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()} == files
    assert 'tensorflow' not in sys.modules


def test_grey_identities_and_two_processes_give_the_same_set(tmp_path):
    fields = {'persons': 3, 'per_person': 2, 'size': 24, 'channels': 1}
    stored = []
    for processes in (1, 2):
        made = synthetic_faces.builder('identities', data_dir=tmp_path / str(processes), processes=processes, **fields)
        made.download_and_prepare()
        stored.append([{**example, 'image': opened(example)} for example in encoded(made)])
    assert [example['label'].decode() for example in stored[0]] == [f'person_{n // 2:04d}' for n in range(6)]
    for one, other in zip(*stored, strict=True):
        assert one['image'].shape == (24, 24)
        np.testing.assert_array_equal(one['image'], other['image'])
        assert one['label'] == one['subject'] == other['label']
        assert one['file'] == other['file']


def test_examples_are_checked_on_the_way_in():
    with pytest.raises(ValueError, match='split'):
        schema.example(b'', label='fear', file='a.png', split='exam')
    with pytest.raises(ValueError, match='empty'):
        schema.example(b'', label='', file='a.png')


# -------------------------------------------------------------------------------------------- contact sheets


def test_contact_sheet_places_pictures_and_captions(tmp_path):
    images = np.stack([np.full((20, 30, 1), level, np.uint8) for level in (10, 90, 200)])
    sheet = np.asarray(contact_sheet.compose(images, ['a', 'b', 'a caption far too long'], columns=2))
    step_y, step_x = 20 + contact_sheet.GAP + contact_sheet.CAPTION, 30 + contact_sheet.GAP
    assert sheet.shape == (2 * step_y + contact_sheet.GAP, 2 * step_x + contact_sheet.GAP, 3)
    assert (sheet[10, 10] == 10).all()
    assert (sheet[10, 10 + step_x] == 90).all()
    assert (sheet[10 + step_y, 10] == 200).all()
    assert sheet[20 + contact_sheet.GAP : step_y, :step_x].min() < 128  # ink under the first picture
    assert (sheet[step_y:, step_x + contact_sheet.GAP :] == 255).all()  # the long caption stays under its picture
    contact_sheet.save(tmp_path / 'sheet.png', images)
    assert (tmp_path / 'sheet.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('images', 'captions'), [(np.zeros((0, 4, 4, 3), np.uint8), ()), (np.zeros((2, 4, 4, 3), np.uint8), 'a')]
)
def test_contact_sheet_refuses_what_it_cannot_show(images, captions):
    with pytest.raises(ValueError, match='images'):
        contact_sheet.compose(images, captions)
