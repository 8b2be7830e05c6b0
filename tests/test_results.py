"""From folds to figures: numbers that can be checked by hand."""

import json

import numpy as np
import pytest

from fn2en_jax import metrics, results

NAMES = ('anger', 'joy')


def fold(matrix: list[list[int]]) -> dict:
    return metrics.summarise(np.array(matrix), NAMES)


def two_folds() -> dict:
    """4 of 5 and 1 of 5 right; together 5 of 10."""
    return results.summarise({'fold0': fold([[2, 0], [1, 2]]), 'fold1': fold([[0, 2], [2, 1]])}, NAMES)


def test_folds_are_pooled_by_adding_their_matrices():
    joined = two_folds()
    assert joined['confusion_matrix'] == [[2, 2], [3, 3]]
    assert joined['num_examples'] == 10
    assert joined['accuracy'] == 0.5
    assert joined['class_averaged_accuracy'] == 0.5  # (2/4 + 3/6) / 2
    assert joined['macro_f1'] == pytest.approx((4 / 9 + 6 / 11) / 2)
    assert joined['per_class_accuracy'] == {'anger': 0.5, 'joy': 0.5}


def test_mean_and_spread_are_those_of_the_folds():
    joined = two_folds()
    assert joined['mean']['accuracy'] == pytest.approx(0.5)
    assert joined['std']['accuracy'] == pytest.approx(0.6 / 2**0.5)  # of a sample: |0.8 - 0.2| / sqrt 2
    # Class-averaged: (1 + 2/3) / 2 and (0 + 1/3) / 2.
    assert joined['mean']['class_averaged_accuracy'] == pytest.approx(0.5)
    assert joined['std']['class_averaged_accuracy'] == pytest.approx((5 / 6 - 1 / 6) / 2**0.5)
    assert list(joined['folds']) == ['fold0', 'fold1']
    assert joined['folds']['fold1']['accuracy'] == pytest.approx(0.2)


def test_figures_on_validation_images_are_joined_by_themselves():
    watched = {'fold0': fold([[1, 0], [0, 3]]), 'fold1': fold([[0, 1], [1, 2]])}
    folds = {'fold0': fold([[1, 1], [0, 2]]), 'fold1': fold([[2, 0], [1, 0]])}
    joined = results.summarise({name: {**folds[name], 'validation': watched[name]} for name in folds}, NAMES)
    assert joined['validation'] == results.summarise(watched, NAMES)
    assert joined['validation']['mean']['accuracy'] == pytest.approx(0.75)
    assert {**joined, 'folds': folds} == {**results.summarise(folds, NAMES), 'validation': joined['validation']}
    table = results.table({'scratch': joined}, NAMES).splitlines()
    assert table[3] == 'the same nets on the validation images'
    assert table[4].split()[4:7] == ['75.0', '±', '35.4']
    assert 'validation' not in results.table({'scratch': results.summarise(folds, NAMES)}, NAMES)


def test_validation_figures_of_some_folds_do_not_stand_for_all():
    watched = {**fold([[1, 1], [0, 2]]), 'validation': fold([[1, 0], [0, 3]])}
    joined = results.summarise({'fold0': watched, 'fold1': fold([[2, 0], [1, 0]])}, NAMES)
    assert 'validation' not in joined
    assert joined['folds']['fold0'] == watched
    assert 'validation' in results.summarise({'fold0': watched}, NAMES)


def test_one_fold_has_no_spread():
    joined = results.summarise({'test': fold([[1, 1], [0, 2]])}, NAMES)
    assert set(joined['std'].values()) == {0.0}
    assert joined['accuracy'] == joined['mean']['accuracy'] == 0.75


def test_all_of_it_is_json():
    assert json.loads(json.dumps(two_folds(), allow_nan=False)) == two_folds()


def test_the_table_shows_percent_with_spread_and_every_class():
    table = results.table({'fn2en': two_folds(), 'scratch': two_folds()}, NAMES).splitlines()
    assert table[1].startswith('Train from scratch (BN)')  # the baseline first
    assert table[2].split() == 'FN2EN 50.0 ± 42.4 % 50.0 ± 47.1 % 48.3 ± 44.8 % 10'.split()  # noqa: SIM905
    assert table[5].split() == ['anger', 'joy']
    assert table[7].split() == ['FN2EN', '50.0', '50.0']


def test_the_table_of_one_fold_has_no_spread_and_a_dash_for_a_class_without_images():
    one = results.summarise({'test': fold([[3, 1], [0, 0]])}, NAMES)
    table = results.table({'finetune': one}, NAMES).splitlines()
    assert table[1].split()[:4] == ['VGG', 'fine-tune', '75.0', '%']
    assert '±' not in table[1]
    assert table[-1].split() == ['VGG', 'fine-tune', '75.0', '-']


def test_earlier_runs_of_a_workdir_are_kept_unless_judged_anew():
    old, new = fold([[2, 0], [1, 2]]), fold([[0, 2], [2, 1]])
    earlier = results.join({'fold0': {'fn2en': old, 'scratch': old}, 'fold10': {'fn2en': old}}, {}, NAMES)
    joined = results.join({'fold2': {'fn2en': new}, 'fold0': {'fn2en': new}}, earlier, NAMES)
    assert list(joined) == ['scratch', 'fn2en']
    assert joined['scratch'] == earlier['scratch']
    assert list(joined['fn2en']['folds']) == ['fold0', 'fold2', 'fold10']
    assert [f['accuracy'] for f in joined['fn2en']['folds'].values()] == pytest.approx([0.2, 0.2, 0.8])
    assert joined['fn2en']['num_examples'] == 15


def test_votes_of_sequences_are_pooled_by_their_numbers():
    folds = {
        'fold0': {**fold([[2, 0], [1, 2]]), 'sequence_accuracy': 1.0, 'num_sequences': 1},
        'fold1': {**fold([[0, 2], [2, 1]]), 'sequence_accuracy': 0.0, 'num_sequences': 3},
    }
    joined = results.summarise(folds, NAMES)
    assert (joined['sequence_accuracy'], joined['num_sequences']) == (0.25, 4)
    assert joined['mean']['sequence_accuracy'] == 0.5
    lines = results.table({'fn2en': joined}, NAMES).splitlines()
    assert lines[3].startswith('whole sequences, by the mean of the frames of their class')
    assert lines[4].split() == ['FN2EN', '50.0', '±', '70.7', '%', '4']
    assert len(lines[3]) == len(lines[4]) == len(lines[1])
    assert 'whole sequences' not in results.table({'fn2en': two_folds()}, NAMES)
