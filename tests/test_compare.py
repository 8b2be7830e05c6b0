"""Runs side by side, on numbers one can do by hand."""

import numpy as np
import pytest

from fn2en_jax import compare
from fn2en_jax.errors import UserError


def run(fn2en: tuple[float, float], scratch: tuple[float, float]) -> dict:
    def folds(values):
        return {'folds': {f'fold{i}': {'accuracy': v, 'class_averaged_accuracy': v} for i, v in enumerate(values)}}

    return {'methods': {'fn2en': folds(fn2en), 'scratch': folds(scratch)}}


RUNS = [run((0.6, 0.8), (0.5, 0.7)), run((0.7, 0.9), (0.8, 0.6))]


def test_pairs_keep_the_order_of_runs_and_folds():
    values = compare.paired(RUNS, 'accuracy')
    np.testing.assert_array_equal(values['fn2en'], [0.6, 0.8, 0.7, 0.9])
    np.testing.assert_array_equal(values['scratch'], [0.5, 0.7, 0.8, 0.6])


def test_table_gives_means_spreads_and_paired_leads():
    lines = compare.table(RUNS, ['a', 'b'], 'accuracy').splitlines()
    assert lines[0].split()[-5:] == ['a', 'b', 'mean', '±', 'sd']
    assert lines[1].split()[-5:] == ['60.0', '70.0', '65.0', '±', '7.1']  # scratch: means of folds 60 and 70
    assert lines[2].split()[-5:] == ['70.0', '80.0', '75.0', '±', '7.1']
    # leads 10, 10, -10, 30: mean 10, sample standard deviation sqrt(800 / 3) = 16.3, three of four won
    assert '10.0 ± 16.3 over 4 pairs, 3 won' in lines[3]


def test_methods_with_other_folds_are_not_paired():
    """As a workdir holds them where one method was run on some folds only."""
    compare.check_alike(RUNS, ['a', 'b'])
    unequal = [run((0.6, 0.8), (0.5, 0.7)), run((0.7, 0.9), (0.8, 0.6))]
    del unequal[1]['methods']['scratch']['folds']['fold1']
    with pytest.raises(UserError, match='a, fn2en has fold0, fold1, but b, scratch has fold0;'):
        compare.check_alike(unequal, ['a', 'b'])
    with pytest.raises(UserError, match='different methods'):
        compare.check_alike([RUNS[0], {'methods': {'fn2en': RUNS[1]['methods']['fn2en']}}], ['a', 'b'])
