"""Folds: given or made, they keep persons apart and test every example once, or they are refused."""

import dataclasses
import json

import numpy as np
import pytest
from absl import logging as absl_logging

from configs import base
from fn2en_jax.data import folds as folds_lib
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError


def make(labels, subjects=None, folds=None, splits=None, class_names=('anger', 'joy')) -> Examples:
    count = len(labels)
    return Examples(
        images=np.zeros((count, 2, 2, 1), np.uint8),
        labels=np.array(labels, np.int32),
        class_names=class_names,
        subjects=None if subjects is None else tuple(subjects),
        files=tuple(f'{chr(97 + i)}.png' for i in range(count)),
        folds=None if folds is None else np.array(folds, np.int32),
        splits=None if splits is None else tuple(splits),
    )


@pytest.fixture
def many() -> Examples:
    """Twenty persons with six images each; a third of the images are of class 0."""
    subjects = [f'p{i // 6}' for i in range(120)]
    examples = make([0], ['x'])
    return dataclasses.replace(
        examples,
        images=np.zeros((120, 2, 2, 1), np.uint8),
        labels=np.array([i % 3 > 0 for i in range(120)], np.int32),
        subjects=tuple(subjects),
        files=tuple(f'{i}.png' for i in range(120)),
    )


def run(examples, num_folds=2, seed=0):
    return folds_lib.make_folds(examples, num_folds=num_folds, seed=seed)


def as_lists(folds):
    return [(fold.name, fold.train.tolist(), fold.test.tolist()) for fold in folds]


@pytest.fixture
def warnings(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(absl_logging, 'warning', lambda text, *args: said.append(text % args))
    return said


def test_given_split():
    examples = make([0, 1, 0, 1, 0], ['a', 'b', 'c', 'd', 'e'], splits=['train', 'train', 'test', 'test', ''])
    assert as_lists(run(examples)) == [('test', [0, 1], [2, 3])]


def test_validation_images_are_neither_trained_on_nor_tested():
    splits = ['train', 'validation', 'train', 'test', 'test', '']
    examples = make([0, 1, 1, 1, 0, 0], ['a', 'c', 'b', 'd', 'e', 'f'], splits=splits)
    (fold,) = run(examples)
    assert (fold.train.tolist(), fold.test.tolist(), fold.validation.tolist()) == ([0, 2], [3, 4], [1])
    assert list(fold.parts) == ['train', 'validation', 'test']
    content = folds_lib.to_json([fold], examples)
    (entry,) = content['folds']
    assert (entry['validation_files'], entry['unused_files']) == (['b.png'], ['f.png'])
    assert entry['validation_counts'] == {'anger': 0, 'joy': 1}
    (again,) = folds_lib.from_json(json.loads(json.dumps(content)), examples)
    assert {part: ids.tolist() for part, ids in again.parts.items()} == {
        'train': [0, 2],
        'validation': [1],
        'test': [3, 4],
    }


def test_a_person_trained_on_and_watched_is_refused():
    examples = make([0, 1, 1, 1], ['a', 'b', 'a', 'c'], splits=['train', 'train', 'validation', 'test'])
    with pytest.raises(UserError, match='test both trains on and validates with a: keep each person in one fold'):
        run(examples)


def test_a_person_watched_and_tested_is_refused(warnings):
    examples = make([0, 1, 1, 1], ['a', 'b', 'c', 'c'], splits=['train', 'train', 'validation', 'test'])
    with pytest.raises(UserError, match='test both validates with and tests c: keep each person in one fold'):
        run(examples)
    warnings.clear()
    folds_lib.make_folds(examples, num_folds=5, seed=0, published=True)
    assert warnings == ['test both validates with and tests c, as the published protocol has it']


def test_given_folds():
    examples = make([0, 1, 1, 0], ['a', 'a', 'b', 'b'], folds=[1, 1, 0, 0])
    assert as_lists(run(examples)) == [('fold0', [0, 1], [2, 3]), ('fold1', [2, 3], [0, 1])]


def test_given_folds_may_count_from_one():
    examples = make([0, 1, 1, 0], ['a', 'a', 'b', 'b'], folds=[1, 1, 2, 2])
    assert [fold.name for fold in run(examples)] == ['fold1', 'fold2']


def test_made_folds_keep_persons_apart_test_everything_once_and_balance_classes(many, warnings):
    folds = run(many, num_folds=5)
    assert [fold.name for fold in folds] == ['fold0', 'fold1', 'fold2', 'fold3', 'fold4']
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(120))
    for fold in folds:
        assert sorted([*fold.train, *fold.test]) == list(range(120))
        assert not {many.subjects[i] for i in fold.train} & {many.subjects[i] for i in fold.test}
        assert many.class_counts(fold.test) == {'anger': 8, 'joy': 16}
    assert warnings == []


def test_made_folds_depend_on_the_seed_alone(many):
    assert as_lists(run(many, 5, seed=3)) == as_lists(run(many, 5, seed=3))
    assert as_lists(run(many, 5, seed=3)) != as_lists(run(many, 5, seed=4))


def test_without_subjects_folds_are_stratified_and_the_user_is_warned(many, warnings):
    unknown = dataclasses.replace(many, subjects=None)
    folds = run(unknown, num_folds=3)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(120))
    counts = [unknown.class_counts(fold.test) for fold in folds]
    assert {count['anger'] for count in counts} <= {13, 14}
    assert len(warnings) == 1
    assert 'cannot be kept person-independent' in warnings[0]


def test_a_rare_class_gives_no_warning_of_the_library():
    labels = [0] * 3 + [1] * 9
    folds = run(make(labels, [str(i) for i in range(12)]), num_folds=4)
    assert sum(len(fold.test) for fold in folds) == 12


@pytest.mark.parametrize('num_folds', [1, 0, 4])
def test_impossible_number_of_folds(num_folds):
    examples = make([0, 1, 0, 1, 0, 1], ['a', 'a', 'b', 'b', 'c', 'c'])
    with pytest.raises(UserError, match=f'cannot make {num_folds} folds of 3 persons: choose 2 to 3'):
        run(examples, num_folds)


def test_class_of_a_single_person_cannot_be_divided():
    examples = make([0, 0, 1, 1, 1, 1], ['a', 'a', 'b', 'b', 'c', 'c'])
    with pytest.raises(UserError, match=r'fold\d has no training image of class anger'):
        run(examples, 2)


def test_given_fold_with_a_person_on_both_sides():
    with pytest.raises(UserError, match='fold0 both trains on and tests b'):
        run(make([0, 1, 0, 1], ['a', 'b', 'b', 'c'], folds=[0, 0, 1, 1]))


def test_given_fold_without_test_image():
    with pytest.raises(UserError, match='fold1 has no test image'):
        run(make([0, 1, 0, 1], ['a', 'a', 'b', 'b'], folds=[0, 0, 2, 2]))


@pytest.mark.parametrize(('side', 'message'), [('train', 'no test image'), ('test', 'no training image')])
def test_given_split_with_one_side(side, message):
    with pytest.raises(UserError, match=message):
        run(make([0, 1], ['a', 'b'], splits=[side, side]))


def test_what_is_given_no_fold_beside_folds_is_only_trained_on():
    one, two = run(make([0, 1, 0, 1, 0, 1], 'abcdef', folds=[0, 0, 1, 1, 1, -1]))
    assert (one.train.tolist(), one.test.tolist()) == ([2, 3, 4, 5], [0, 1])
    assert (two.train.tolist(), two.test.tolist()) == ([0, 1, 5], [2, 3, 4])


@pytest.mark.parametrize(
    ('given', 'asked', 'told'),
    [
        ({'folds': [0, 0, 1, 1]}, 3, 'the data brings 2 folds'),
        ({'splits': ['train', 'train', 'test', 'test']}, 10, 'the data brings a division into training and test'),
        ({'folds': [0, 0, 1, 1]}, 2, ''),
        ({'folds': [0, 0, 1, 1]}, folds_lib.DEFAULT_NUM, ''),
        ({}, 2, ''),
    ],
)
def test_a_number_of_folds_that_means_nothing_is_warned_of(caplog, given, asked, told):
    run(make([0, 1, 0, 1], ['a', 'a', 'b', 'b'], **given), asked)
    assert ('config.data.num_folds' in caplog.text) == bool(told)
    assert told in caplog.text


def test_the_default_number_of_folds_is_that_of_the_configs():
    assert base.get_config().data.num_folds == folds_lib.DEFAULT_NUM


def test_all_data(many):
    fold = folds_lib.all_data(many)
    assert fold.name == 'all'
    assert fold.train.tolist() == list(range(120))
    assert len(fold.test) == 0


# ------------------------------------------------------------------- written and read


def test_json_says_what_is_tested():
    examples = make([0, 1, 1, 0, 1], ['a', 'a', 'b', 'b', 'b'], folds=[1, 1, 0, 0, 0])
    content = json.loads(json.dumps(folds_lib.to_json(run(examples), examples)))
    assert content == {
        'class_names': ['anger', 'joy'],
        'num_examples': 5,
        'person_independent': True,
        'folds': [
            {
                'name': 'fold0',
                'train_counts': {'anger': 1, 'joy': 1},
                'test_counts': {'anger': 1, 'joy': 2},
                'test_files': ['c.png', 'd.png', 'e.png'],
            },
            {
                'name': 'fold1',
                'train_counts': {'anger': 1, 'joy': 2},
                'test_counts': {'anger': 1, 'joy': 1},
                'test_files': ['a.png', 'b.png'],
            },
        ],
    }


def test_json_of_unknown_persons_says_so(many):
    unknown = dataclasses.replace(many, subjects=None)
    assert folds_lib.to_json(run(unknown), unknown)['person_independent'] is False


def test_read_back(many, tmp_path):
    folds = run(many, 5)
    path = tmp_path / 'folds.json'
    path.write_text(json.dumps(folds_lib.to_json(folds, many)))
    assert as_lists(folds_lib.read_json(path, many)) == as_lists(folds)


def entry(name, *files):
    return {'name': name, 'test_files': list(files)}


def test_a_single_fold_may_leave_examples_to_training():
    examples = make([0, 1, 0, 1], ['a', 'a', 'b', 'b'])
    folds = folds_lib.from_json({'folds': [entry('mine', 'd.png', 'c.png')]}, examples)
    assert as_lists(folds) == [('mine', [0, 1], [2, 3])]


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ([entry('x', 'a.png', 'b.png'), entry('x', 'c.png', 'd.png')], 'fold names must differ'),
        ([entry('x', 'a.png', 'z.png')], "test_files of fold x has 'z.png', which is not in the data"),
        ([entry('x', 'a.png', 'b.png', 'a.png')], "test_files of fold x has 'a.png' twice"),
        ([{**entry('x', 'a.png', 'b.png'), 'unused_files': ['b.png']}], "fold x has 'b.png' in two of its lists"),
        ([entry('x', 'a.png', 'b.png'), entry('y', 'b.png', 'c.png', 'd.png')], "'b.png' is tested twice"),
        ([entry('x', 'a.png', 'b.png'), entry('y', 'c.png')], "'d.png' is in the data but no fold tests it"),
        ([entry('x', 'a.png', 'd.png'), entry('y', 'b.png', 'c.png')], 'x both trains on and tests a, b'),
        ([entry('x')], 'x has no test image'),
        ([entry('x', 'a.png', 'b.png', 'c.png', 'd.png')], 'x has no training image'),
        ([entry('none', 'a.png', 'b.png')], "a fold cannot be named 'none', use a word"),
        ([entry('all', 'a.png', 'b.png')], "a fold cannot be named 'all'"),  # whose folder is that of config.fold none
        ([entry('x/y', 'a.png', 'b.png')], "a fold cannot be named 'x/y'"),
        ([entry('..', 'a.png', 'b.png')], "a fold cannot be named '..'"),
        ([entry('', 'a.png', 'b.png')], "a fold cannot be named ''"),
        ([{'name': 'x'}], 'not a folds file'),
        ([{'test_files': ['a.png']}], 'not a folds file'),
        ([entry('x', 3)], 'not a folds file'),
        ([], 'not a folds file'),
    ],
)
def test_bad_folds_files(entries, message):
    examples = make([0, 1, 0, 1], ['a', 'a', 'b', 'b'])
    with pytest.raises(UserError, match=f'^mine.json: .*{message}'):
        folds_lib.from_json({'folds': entries}, examples, source='mine.json')


@pytest.mark.parametrize('content', [None, [], {}, {'folds': 'x'}, {'folds': {'name': 'x'}}])
def test_other_json_is_no_folds_file(many, content):
    with pytest.raises(UserError, match='not a folds file'):
        folds_lib.from_json(content, many)


@pytest.mark.parametrize(
    ('data', 'message'), [(None, 'cannot be read'), (b'{', 'is not JSON'), (b'\xff', 'is not JSON')]
)
def test_unreadable_folds_file(many, tmp_path, data, message):
    path = tmp_path / 'folds.json'
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        folds_lib.read_json(path, many)


@pytest.mark.parametrize('given', ['folds', 'splits'])
def test_only_a_division_that_came_with_a_published_set_is_warned_of(given, warnings):
    columns = {'folds': [0, 0, 1, 1], 'splits': ['test', 'test', 'train', 'train']}
    examples = make([0, 1, 0, 1], ['a', 'b', 'b', 'c'], **{given: columns[given]})
    if given == 'folds':  # dealt by us
        with pytest.raises(UserError, match='fold0 both trains on and tests b'):
            folds_lib.make_folds(examples, num_folds=2, seed=0, published=True)
        return
    (fold,) = folds_lib.make_folds(examples, num_folds=5, seed=0, published=True)
    assert warnings == ['test both trains on and tests b, as the published protocol has it']
    content = folds_lib.to_json([fold], examples)
    folds_lib.from_json(content, examples, published=True)
    assert len(warnings) == 2
    with pytest.raises(UserError, match=r'^mine: test both trains on and tests b: keep each person in one fold'):
        folds_lib.from_json(content, examples, source='mine')


def official(*words: str) -> Examples:
    return dataclasses.replace(make([i % 2 for i in range(len(words))]), official_folds=words)


@pytest.mark.parametrize(
    ('lists', 'told'),
    [
        ({}, ['mine: fold x trains on 1 images that the set keeps for validation']),
        ({'validation_files': ['c.png']}, []),
        ({'unused_files': ['c.png']}, []),
    ],
)
@pytest.mark.parametrize('brought', ['splits', 'official_folds'])
def test_training_on_the_validation_images_of_the_set_is_told(brought, lists, told, warnings):
    examples = make([0, 1, 0, 1], splits=['train', 'train', 'validation', 'test'])
    if brought == 'official_folds':
        examples = official('te', 'tt', 'vt', 'et')
    folds_lib.from_json({'folds': [{**entry('x', 'd.png'), **lists}]}, examples, source='mine')
    assert [text.split(';')[0] for text in warnings] == told


def test_several_folds_test_no_more_and_no_less_than_the_official_ones():
    examples = official('tee', 'ttt', 'tte', 'ett', 'ett', 'tet')  # a is tested twice, b never

    def read(*lists: str):
        entries = [entry(f'x{k}', *(f'{letter}.png' for letter in letters)) for k, letters in enumerate(lists)]
        return folds_lib.from_json({'folds': entries}, examples, source='mine')

    assert [fold.test.tolist() for fold in read('de', 'af', 'ac')] == [[3, 4], [0, 5], [0, 2]]
    read('de', 'abf', 'c')
    with pytest.raises(UserError, match=r"mine: 'd\.png' is tested 3 times"):
        read('de', 'de', 'de')
    with pytest.raises(UserError, match=r"mine: 'a\.png' is tested 3 times"):
        read('ade', 'af', 'ac')
    with pytest.raises(UserError, match=r"mine: 'c\.png' is in the data but no fold tests it"):
        read('de', 'af')


# ------------------------------------------------------------------- persons in both sets


def test_shared_persons_sees_through_spelling():
    identities = make([0] * 4, ['Ann_Lee', 'bob', 'Anna', 'Jean-Luc'])
    expressions = make([0] * 5, ['ann lee', 'cem', 'Bob', 'Bobby', 'Jean Luc'])
    assert folds_lib.shared_persons(identities, expressions) == ['Bob', 'Jean Luc', 'ann lee']


def test_no_shared_persons_where_nobody_is_known():
    assert folds_lib.shared_persons(make([0], ['a']), make([0])) == []
    assert folds_lib.shared_persons(make([0]), make([0], ['a'])) == []


def test_unknown_persons_are_not_one_person(warnings):
    some = make([0, 1, 0, 1, 0, 1], ['a', '', 'b', 'a', '', 'b'], splits=['train', 'train', 'train'] + ['test'] * 3)
    with pytest.raises(UserError, match='test both trains on and tests a, b: keep'):
        run(some, folds_lib.DEFAULT_NUM)
    warnings.clear()
    apart = make([0, 1, 0, 1], ['a', '', 'b', ''], splits=['train', 'train', 'test', 'test'])
    assert as_lists(run(apart, folds_lib.DEFAULT_NUM)) == [('test', [0, 1], [2, 3])]
    assert [text.split(',')[0] for text in warnings] == [
        'Of 2 images no subject is given: the folds cannot be kept person-independent'
    ]
    assert folds_lib.to_json(run(apart), apart)['person_independent'] is False
    assert folds_lib.shared_persons(some, apart) == ['a', 'b']


def test_images_of_unknown_persons_are_dealt_one_by_one_with_a_warning(many, warnings):
    some = dataclasses.replace(many, subjects=('',) * 30 + many.subjects[30:])
    folds = run(some, 5)
    for fold in folds:
        assert not {some.subjects[i] for i in fold.train} & {some.subjects[i] for i in fold.test} - {''}
        assert 0 < sum(i < 30 for i in fold.test) < 30
    assert [text.split(':')[0] for text in warnings] == ['Of 30 images no subject is given']
