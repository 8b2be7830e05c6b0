"""Opening a user's sets: what is warned of."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fn2en_jax.data import alignment, folds, images, protocols, sources, tables, viola_jones
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError
from tests import scenes
from tests.trees import tfd


def test_copies_within_a_set_and_between_the_two_are_warned_of(tmp_path: Path, caplog):
    draw = np.random.default_rng(0)
    for name in 'abcd':
        Image.fromarray(draw.integers(0, 256, (40, 36), np.uint8)).save(tmp_path / f'{name}.png')
    (tmp_path / 'again.png').write_bytes((tmp_path / 'a.png').read_bytes())
    (tmp_path / 'e.csv').write_text('file,expression\na.png,joy\nb.png,anger\nagain.png,joy\n')
    (tmp_path / 'i.csv').write_text('file,identity\nb.png,ann\nc.png,bob\nd.png,bob\n')
    wanted = sources.Wanted('csv', str(tmp_path / 'e.csv'), str(tmp_path / 'i.csv'))
    reading = sources.Reading(str(tmp_path / 'data'), 32, 1, 1 << 30, {})
    for _ in range(2):  # also when the sets are stored already
        caplog.clear()
        with caplog.at_level('WARNING', logger='absl'):
            sources.open_data(wanted, reading, need_identities=True)
        assert "e.csv: 1 images are byte for byte copies of others ('again.png' of 'a.png')" in caplog.text
        assert 'i.csv: ' not in caplog.text
        assert '1 images are in both sets' in caplog.text


def photographs(folder: Path, points: bool) -> Path:
    """Four pictures of noise; with points, the eyes stand on a line that rises to the right."""
    draw = np.random.default_rng(0)
    lines = ['file,expression' + (',' + ','.join(tables.POINTS) if points else '')]
    for number in range(4):
        Image.fromarray(draw.integers(0, 256, (90, 80), np.uint8)).save(folder / f'{number}.png')
        marks = ',25,45,55,35,41,50,35,66,50,61' if points else ''
        lines.append(f'{number}.png,{("joy", "anger")[number % 2]}{marks}')
    (folder / 'e.csv').write_text('\n'.join(lines))
    return folder / 'e.csv'


def test_landmarks_of_a_table_are_used_and_nothing_is_detected(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(viola_jones, 'largest', None)
    monkeypatch.setattr(viola_jones, 'detect', None)
    wanted = sources.Wanted('csv', str(photographs(tmp_path, points=True)))
    done = []
    reading = sources.Reading(
        str(tmp_path / 'data'), 64, 1, 1 << 30, {}, faces='align', progress=lambda *told: done.append(told)
    )
    examples = sources.open_data(wanted, reading, need_identities=False).expressions
    assert done[-1] == ('preparing images of e.csv', 4, 4)
    assert 'landmarks' not in caplog.text
    as_it_is = dataclasses.replace(reading, faces='')
    plain = sources.open_data(wanted, as_it_is, need_identities=False).expressions
    assert caplog.text.count('e.csv: its landmarks are not used') == 1
    assert examples.files == plain.files
    pixels = np.array(Image.open(io.BytesIO((tmp_path / '0.png').read_bytes())))[..., None]
    points = ((25.0, 45.0), (55.0, 35.0), (41.0, 50.0), (35.0, 66.0), (50.0, 61.0))
    by_hand = alignment.cut(pixels, alignment.FaceStep('align'), points=points)
    np.testing.assert_array_equal(examples.images[0], images.fit(by_hand.image, 64))
    assert np.abs(examples.images[0].astype(int) - plain.images[0]).mean() > 10


@pytest.mark.parametrize(('no_face', 'left'), [('keep', 4), ('drop', 0)])
def test_pictures_without_a_face_are_kept_or_dropped(tmp_path, no_face, left, caplog):
    wanted = sources.Wanted('csv', str(photographs(tmp_path, points=False)))
    reading = sources.Reading(str(tmp_path / 'data'), 64, 1, 1 << 30, {}, faces='align', no_face=no_face)
    if not left:
        with pytest.raises(UserError, match='no image is left'):
            sources.open_data(wanted, reading, need_identities=False)
        return
    for _ in range(2):  # also when the set is stored already
        caplog.clear()
        assert len(sources.open_data(wanted, reading, need_identities=False).expressions) == left
        assert 'e.csv:\n  no face found in and kept the centre of 4:\n    0.png\n    1.png\n' in caplog.text


def test_dropped_pictures_are_named(tmp_path, caplog):
    table = photographs(tmp_path, points=False)
    picture, _ = scenes.scene((scenes.face(3, 160), (60, 40)))
    Image.fromarray(picture).save(tmp_path / '2.png')
    wanted = sources.Wanted('csv', str(table))
    reading = sources.Reading(str(tmp_path / 'data'), 64, 1, 1 << 30, {}, faces='align', no_face='drop')
    for _ in range(2):
        caplog.clear()
        assert sources.open_data(wanted, reading, need_identities=False).expressions.files == ('2.png',)
        assert caplog.text.rstrip().endswith('no face found in and dropped 3:\n    0.png\n    1.png\n    3.png')
    plain = sources.Reading(str(tmp_path / 'data'), 64, 1, 1 << 30, {})
    caplog.clear()
    sources.open_data(wanted, plain, need_identities=False)
    assert 'no face' not in caplog.text


def test_of_tfd_the_known_persons_are_known(tmp_path: Path, caplog):
    """Ten persons, of whom one has no number."""
    tfd.write(tmp_path / 'download')
    reading = sources.Reading(str(tmp_path / 'data'), 48, 1, 1 << 30, {})

    def opened(**choice) -> Examples:
        wanted = sources.Wanted('tfd', manual_dir=str(tmp_path / 'download'), choice=protocols.Choice(**choice))
        return sources.open_data(wanted, reading, need_identities=False).expressions

    official = opened()
    assert (len(official), len(set(official.subjects)), official.subjects.count('')) == (70, 10, 7)
    assert 'leaves them out' not in caplog.text
    dealt = opened(rule='step', num_folds=3)
    assert (len(dealt), len(set(dealt.subjects)), dealt.subjects.count('')) == (63, 9, 0)
    made = folds.make_folds(dealt, num_folds=3, seed=0, published=True)
    assert [len({dealt.subjects[i] for i in fold.test}) for fold in made] == [3, 3, 3]
    assert "tfd does not say who 7 images show: the fold rule 'step' leaves them out" in caplog.text


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        (sources.Wanted('ckplus', 'mine.csv'), "data.expressions is for the sources csv and folder; .* is 'ckplus'"),
        (
            sources.Wanted('synthetic', 'mine.csv'),
            "data.expressions is for the sources csv and folder; .* is 'synthetic'",
        ),
        (sources.Wanted('sfew', extra_manual_dir='fer'), 'data.extra_manual_dir is the download of config.data.extra,'),
    ],
)
def test_paths_that_nothing_would_read_are_refused(tmp_path: Path, wanted, message):
    reading = sources.Reading(str(tmp_path), 32, 1, 1 << 30, {})
    with pytest.raises(UserError, match=rf'^config\.{message}'):
        sources.open_data(wanted, reading, need_identities=False)
    assert not list(tmp_path.iterdir())
