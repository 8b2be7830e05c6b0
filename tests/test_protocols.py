"""The published protocols: the folds of CK+ and FMPN as published, classes by name, splits, extra training data."""

import dataclasses

import numpy as np
import pytest

from fn2en_jax import metrics
from fn2en_jax.data import folds, protocols
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.protocols import Choice
from fn2en_jax.errors import UserError
from tests import ckplus_folds

# Published numbers of test sequences per fold; see docs/datasets.md.
SEVEN = [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]
SIX_OF_ALL = [32, 37, 38, 33, 28, 35, 27, 28, 31, 20]
SIX_OF_CHOSEN = [31, 37, 39, 31, 30, 34, 27, 26, 31, 23]
FMPN_IMAGES = [78, 72, 114, 90, 90, 93, 111, 108, 114, 111]


def ckplus() -> Examples:
    """The 1,308 images as they are stored: of every labelled sequence the first frame and the last three."""
    rows = [
        (label, person, f'{person}_{place:03d}', frame)
        for place, (person, emotion, _) in enumerate(ckplus_folds.sequences())
        for frame, label in ((1, 'neutral'), (9, emotion), (10, emotion), (11, emotion))
    ]
    return examples(*zip(*rows, strict=True))


def examples(labels, subjects=None, sequences=None, frames=None, splits=None, official=None) -> Examples:
    names = tuple(sorted(set(labels)))
    return Examples(
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=np.array([names.index(label) for label in labels], np.int32),
        class_names=names,
        subjects=subjects,
        files=tuple(f'{place}.png' for place in range(len(labels))),
        splits=splits,
        sequences=sequences,
        frames=None if frames is None else np.array(frames, np.int32),
        official_folds=official,
    )


def fold_sizes(chosen: Examples) -> list[int]:
    made = folds.make_folds(chosen, num_folds=10, seed=0, published=True)
    return [len(fold.test) for fold in made]


def test_folds_of_ckplus_are_the_published_ones():
    eight = protocols.apply('ckplus', ckplus(), Choice())
    assert len(eight) == 1308
    assert fold_sizes(eight) == [4 * count for count in SEVEN]
    published = {person: fold for person, _, fold in ckplus_folds.sequences()}
    assert {person: int(fold) for person, fold in zip(eight.subjects, eight.folds, strict=True)} == published


@pytest.mark.parametrize(('classes', 'count'), [(8, 327), (7, 327), (6, 309)])
def test_a_neutral_first_frame_of_ckplus_is_no_sequence(classes, count):
    chosen = protocols.apply('ckplus', ckplus(), Choice(classes=classes))
    right = metrics.sequence_votes(np.eye(classes)[chosen.labels], chosen.labels, chosen.sequences, chosen.frames)
    assert right == {'sequence_accuracy': 1.0, 'num_sequences': count}


def test_class_counts_of_ckplus():
    seven = protocols.apply('ckplus', ckplus(), Choice(classes=7))
    assert fold_sizes(seven) == [3 * count for count in SEVEN]
    assert seven.class_counts() == {
        'anger': 135,
        'contempt': 54,
        'disgust': 177,
        'fear': 75,
        'happiness': 207,
        'sadness': 84,
        'surprise': 249,
    }
    six = protocols.apply('ckplus', ckplus(), Choice(classes=6))
    assert len(six) == 927
    assert 'contempt' not in six.class_names


@pytest.mark.parametrize(('subjects', 'counts'), [('all', SIX_OF_ALL), ('chosen', SIX_OF_CHOSEN)])
def test_six_classes_deal_all_118_persons_or_only_the_106(subjects, counts):
    six = protocols.apply('ckplus', ckplus(), Choice(classes=6, subjects=subjects))
    assert fold_sizes(six) == [3 * count for count in counts]


def test_blocks_are_those_of_fmpn():
    seven = protocols.apply('ckplus', ckplus(), Choice(classes=7, rule='blocks'))
    assert fold_sizes(seven) == FMPN_IMAGES
    last = {seven.subjects[i] for i in np.flatnonzero(seven.folds == 9)}
    first = {seven.subjects[i] for i in np.flatnonzero(seven.folds == 0)}
    assert (min(last), max(last), min(first), max(first)) == ('S005', 'S037', 'S156', 'S999')


def test_persons_are_dealt_in_ascending_order():
    dealt = protocols.deal(['P03', 'P01', 'P02', 'P01', 'P04', 'P05'], 'step', 2)
    assert dealt == {'P01': 0, 'P02': 1, 'P03': 0, 'P04': 1, 'P05': 0}
    assert protocols.deal(['e', 'd', 'c', 'b', 'a'], 'blocks', 2) == {'a': 1, 'b': 1, 'c': 0, 'd': 0, 'e': 0}


def test_a_class_is_told_by_its_name():
    some = examples(['sadness', 'neutral', 'anger', 'unheard of'])
    kept = protocols.with_classes(some, ('neutral', 'anger', 'fear'))
    assert [kept.class_names[label] for label in kept.labels] == ['neutral', 'anger']
    assert kept.labels.tolist() == [0, 1]
    assert kept.files == ('1.png', '2.png')


def test_official_splits():
    labels = list(protocols.WITH_NEUTRAL) * 3
    splits = ('train',) * 7 + ('validation',) * 7 + ('test',) * 7
    fer = examples(labels, splits=splits)
    for choice, tested, watched in (
        (Choice(), range(14, 21), range(7, 14)),
        (Choice(test='validation'), range(7, 14), []),  # the third part neither trains nor tests
    ):
        (fold,) = folds.make_folds(protocols.apply('fer2013', fer, choice), num_folds=5, seed=0, published=True)
        assert fold.train.tolist() == list(range(7))
        assert (fold.test.tolist(), fold.validation.tolist()) == (list(tested), list(watched))
    (fold,) = folds.make_folds(protocols.apply('sfew', fer, Choice()), num_folds=5, seed=0, published=True)
    assert fold.test.tolist() == list(range(7, 14))


def test_official_folds_of_tfd(caplog):
    labels = list(protocols.WITH_NEUTRAL) * 3
    words = ('te',) * 7 + ('vt',) * 7 + ('et',) * 7
    tfd = examples(labels, subjects=tuple('abcdefg' * 3), official=words)
    one, two = folds.make_folds(protocols.apply('tfd', tfd, Choice()), num_folds=5, seed=0, published=True)
    assert (one.train.tolist(), one.test.tolist()) == (list(range(7)), list(range(14, 21)))
    assert (one.validation.tolist(), two.validation.tolist()) == (list(range(7, 14)), [])
    assert (two.train.tolist(), two.test.tolist()) == (list(range(7, 21)), list(range(7)))
    assert 'trains on and tests a, b' in caplog.text  # the publisher's folds are kept, and their fault is told


@pytest.mark.parametrize('name', ['fer2013', 'tfd'])
def test_what_neither_trains_nor_tests_survives_the_folds_file(name):
    labels = list(protocols.WITH_NEUTRAL) * 3
    some = examples(labels, splits=('train',) * 7 + ('validation',) * 7 + ('test',) * 7)
    if name == 'tfd':
        # The last row is tested in both folds, as an official division may have it.
        some = examples(
            labels, subjects=tuple('abcdefg' * 3), official=('te',) * 7 + ('vt',) * 7 + ('et',) * 6 + ('ee',)
        )
    chosen = protocols.apply(name, some, Choice())
    made = folds.make_folds(chosen, num_folds=5, seed=0, published=True)
    again = folds.from_json(folds.to_json(made, chosen), chosen, published=True)
    for one, other in zip(made, again, strict=True):
        assert (one.name, one.train.tolist(), one.test.tolist()) == (
            other.name,
            other.train.tolist(),
            other.test.tolist(),
        )


def test_extra_images_are_trained_on_and_never_tested():
    sfew = protocols.apply(
        'sfew', examples(list(protocols.WITH_NEUTRAL) * 2, splits=('train',) * 7 + ('validation',) * 7), Choice()
    )
    fer = examples(['happiness', 'contempt', 'anger'], splits=('train', 'train', 'test'))
    joined = protocols.join(sfew, fer, 'fer2013')
    (fold,) = folds.make_folds(joined, num_folds=5, seed=0, published=True)
    assert fold.train.tolist() == [*range(7), 14, 15]
    assert fold.test.tolist() == list(range(7, 14))
    assert joined.files[14:] == ('fer2013/0.png', 'fer2013/2.png')
    assert [joined.class_names[label] for label in joined.labels[14:]] == ['happiness', 'anger']


def test_persons_of_the_extra_set_are_others_even_where_they_are_called_the_same():
    joined = protocols.join(protocols.apply('ckplus', ckplus(), Choice()), ckplus(), 'other')
    assert not set(joined.subjects[:1308]) & set(joined.subjects[1308:])
    folds.make_folds(joined, num_folds=10, seed=0)  # which refuses a person on both sides


@pytest.mark.parametrize(
    ('source', 'extra', 'fit'),
    [
        ('fer2013', 'fer2013', False),
        ('fer2013', 'ferplus', False),
        ('sfew', 'sfew_frames', False),
        ('affectnet_npy', 'affectnet', False),
        ('tfd', 'jaffe', False),
        ('ckplus', 'tfd', False),
        ('sfew', 'fer2013', True),
        ('ckplus', 'mmi', True),
    ],
)
def test_an_extra_set_that_holds_the_test_images_is_refused(source, extra, fit):
    if fit:
        protocols.check_extra(source, extra)
        return
    with pytest.raises(UserError, match=f'config.data.extra is {extra!r}, which shares images with {source}'):
        protocols.check_extra(source, extra)


def test_extra_images_beside_folds():
    strangers = dataclasses.replace(ckplus(), subjects=None)
    joined = protocols.join(protocols.apply('ckplus', ckplus(), Choice()), strangers, 'again')
    made = folds.make_folds(joined, num_folds=10, seed=0, published=True)
    assert [len(fold.test) for fold in made] == [4 * count for count in SEVEN]
    assert all(len(fold.train) == 2 * 1308 - len(fold.test) for fold in made)
    assert joined.sequences[1308:] == ('',) * 1308
    (one, *_) = folds.from_json(folds.to_json(made, joined), joined)
    assert one.test.tolist() == made[0].test.tolist()


@pytest.mark.parametrize(
    ('name', 'choice', 'message'),
    [
        ('ckplus', Choice(classes=5), 'config.data.classes is 5; ckplus is used with 8 or 7 or 6'),
        ('ckplus', Choice(rule='dice'), 'config.data.fold_rule is'),
        ('ckplus', Choice(subjects='some'), "'all' or 'chosen'"),
        ('ckplus', Choice(rule='official'), "'official', but ckplus brings no division; use step or blocks"),
        ('ckplus', Choice(num_folds=119), '119 folds of 118 persons'),
        ('ckplus', Choice(test='validation'), 'config.data.test_split'),
        ('ckplus', Choice(num_folds=1), 'choose 2 to 118'),
    ],
)
def test_what_a_set_does_not_offer_is_refused(name, choice, message):
    with pytest.raises(UserError, match=message):
        protocols.apply(name, ckplus(), choice)


def test_the_training_part_is_not_tested():
    fer = examples(list(protocols.WITH_NEUTRAL) * 2, splits=('train',) * 7 + ('test',) * 7)
    with pytest.raises(
        UserError, match=r"config\.data\.test_split is 'train', which fer2013 trains on; use validation or"
    ):
        protocols.apply('fer2013', fer, Choice(test='train'))


def test_subjects_are_not_chosen_where_the_set_brings_its_division():
    fer = examples(list(protocols.WITH_NEUTRAL) * 2, splits=('train',) * 7 + ('test',) * 7)
    with pytest.raises(UserError, match="fold_subjects is 'chosen', but fer2013 brings its own division"):
        protocols.apply('fer2013', fer, Choice(subjects='chosen'))


@pytest.mark.parametrize('known', [True, False])
def test_with_a_folds_file_nobody_is_dealt(known):
    """Three persons, whom ten folds would not fit, or nobody whom any would."""
    labels = ['anger', 'happiness'] * 3
    few = examples(labels, subjects=tuple('aabbcc') if known else None)
    with pytest.raises(UserError, match='cannot make 10 folds of 3 persons' if known else 'names no persons'):
        protocols.apply('ckplus', few, Choice())
    chosen = protocols.with_classes(few, ('anger', 'happiness'))
    kept = protocols.apply('ckplus', few, Choice(deal=False))
    joined = protocols.join(
        dataclasses.replace(kept, labels=chosen.labels, class_names=chosen.class_names), few, 'more'
    )
    entries = [{'name': f'x{k}', 'test_files': [f'{2 * k}.png', f'{2 * k + 1}.png']} for k in range(3)]
    made = folds.from_json({'folds': entries}, joined)
    assert [fold.test.tolist() for fold in made] == [[0, 1], [2, 3], [4, 5]]
    assert all(set(fold.train) >= set(range(6, 12)) for fold in made)  # the extra images


def test_folds_cannot_be_dealt_without_persons():
    nobody = dataclasses.replace(ckplus(), subjects=None)
    with pytest.raises(UserError, match='names no persons'):
        protocols.apply('ckplus', nobody, Choice())


def test_every_set_has_a_protocol():
    from fn2en_jax.data.datasets import DATASETS

    assert protocols.PROTOCOLS.keys() == DATASETS.keys()
    for protocol in protocols.PROTOCOLS.values():
        assert all(len(names) == number for number, names in protocol.classes.items())


def tfd() -> Examples:
    """Official folds, and rows without a person, as TFD has them."""
    persons = ('id 3', 'id 3', '', 'id 1', 'id 2', '', 'id 2', 'id 1')
    return examples([*protocols.WITH_NEUTRAL, 'anger'], subjects=persons, official=('tevvt', 'etttv') * 4)


def test_images_of_unknown_persons_are_not_dealt(caplog):
    dealt = protocols.apply('tfd', tfd(), Choice(rule='step', num_folds=2))
    assert dict(zip(dealt.files, dealt.folds.tolist(), strict=True)) == {
        **{'0.png': 0, '1.png': 0, '3.png': 0, '4.png': 1, '6.png': 1, '7.png': 0}
    }
    assert 'tfd does not say who 2 images show: the fold rule' in caplog.text
    with pytest.raises(UserError, match='cannot make 4 folds of 3 persons'):
        protocols.apply('tfd', tfd(), Choice(rule='step', num_folds=4))
    nobody = dataclasses.replace(tfd(), subjects=('',) * 8)
    with pytest.raises(UserError, match='tfd names no persons'):
        protocols.apply('tfd', nobody, Choice(rule='step'))


def test_a_folds_file_of_tfd_may_not_share_known_persons():
    twice = tfd().take([*range(8), *range(8)])
    chosen = protocols.apply('tfd', dataclasses.replace(twice, files=tuple(map(str, range(16)))), Choice(deal=False))
    with pytest.raises(UserError, match='x both trains on and tests id 3: keep'):
        folds.from_json({'folds': [{'name': 'x', 'test_files': ['0', '2']}]}, chosen)
    (fold,) = folds.from_json({'folds': [{'name': 'x', 'test_files': ['2']}]}, chosen)
    assert fold.test.tolist() == [2]


def test_extra_images_of_unknown_persons_are_of_one_person_each():
    more = dataclasses.replace(tfd(), official_folds=None)
    joined = protocols.join(
        protocols.apply('sfew', dataclasses.replace(more, splits=('validation',) * 8), Choice()), more, 'm'
    )
    assert joined.subjects[8:] == ('m/id 3', 'm/id 3', 'm/2.png', 'm/id 1', 'm/id 2', 'm/5.png', 'm/id 2', 'm/id 1')
