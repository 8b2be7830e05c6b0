"""The paper's table: the user's runs beside published numbers, folds of several workdirs joined."""

import csv
import io
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from fn2en_jax import compare, literature, metrics, report_table, results, table_formats
from fn2en_jax.data import protocols
from fn2en_jax.errors import UserError

FOLDS = {'folds': [{'name': f'fold{k}', 'test_files': [f'{k}.png']} for k in range(3)]}
EIGHT = ['anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise']


def score(hits: int, misses: int, names=EIGHT) -> dict:
    matrix = np.zeros((len(names), len(names)), np.int64)
    matrix[0, 0], matrix[1, 0] = hits, misses
    return metrics.summarise(matrix, names)


def write(folder, folds, *, source='ckplus', learning_rate=0.1, fold='all', extra='', names=EIGHT):
    """A finished workdir; folds: {name: {method: (hits, misses)}}."""
    folder.mkdir()
    config = {'fold': fold, 'seed': 0, 'data': {'source': source, 'extra': extra}, 'learning_rate': learning_rate}
    (folder / 'config.json').write_text(json.dumps(config))
    scores = {name: {method: score(*counts, names) for method, counts in fold.items()} for name, fold in folds.items()}
    found = {
        'class_names': names,
        'methods': results.join(scores, {}, names),
        'seconds': {f'{name}/x': 1.0 for name in folds},
        'seed': 0,
    }
    (folder / 'results.json').write_text(json.dumps(found))
    (folder / 'folds.json').write_text(json.dumps(FOLDS))
    return folder


@pytest.fixture
def whole(tmp_path):
    folds = {'fold0': {'fn2en': (9, 1), 'finetune': (8, 2)}, 'fold1': {'fn2en': (7, 3), 'finetune': (5, 5)}}
    return write(tmp_path / 'whole', folds)


def rows(text: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in csv.reader(io.StringIO(text))}


def test_runs_stand_beside_the_paper(whole):
    title, found = literature.beside_published(*report_table.joined([whole]))
    table = {row[0]: row[1:] for row in found}
    assert title == 'ckplus, 8 classes; published: 1,308 images, 10-fold, person-independent'
    assert table['FN2EN'] == ('80.0 ± 14.1', '50.0 ± 0.0', '96.8', '-16.8', '2')  # by hand: 90 and 70, of 100 and 0
    assert table['VGG fine-tune'][2:4] == ('89.9', '-24.9')
    assert table['Train from scratch (BN)'] == ('', '', '88.7', '', '')  # not run
    assert table['AUDN'] == ('', '', '92.1', '', '')


def test_a_fold_per_workdir_makes_the_same_table(whole, tmp_path):
    config, found = report_table.joined([whole])
    parts = [
        write(tmp_path / 'a', {'fold0': {'fn2en': (9, 1), 'finetune': (8, 2)}}, fold='0'),
        write(tmp_path / 'b', {'fold1': {'fn2en': (7, 3), 'finetune': (5, 5)}}, fold='1'),
    ]
    for order in (parts, parts[::-1]):
        _, joined = report_table.joined(order)
        assert joined['methods'] == found['methods']
        assert joined['seconds'] == {'fold0/x': 1.0, 'fold1/x': 1.0}
    folds = report_table.joined_folds(parts)
    assert report_table.missing(folds, joined) == ['fold2']
    (parts[1] / 'fold1').mkdir()
    (parts[1] / 'fold1/predictions_fn2en.csv').write_text('file\n')
    report_table.merge(tmp_path / 'merged', config, joined, folds, parts)
    assert (tmp_path / 'merged/fold1/predictions_fn2en.csv').read_text() == 'file\n'
    names = {path.name for path in (tmp_path / 'merged').iterdir()}
    assert names >= {'folds.json', 'config.json', 'confusion_fn2en.png', 'confusion_finetune.png'}
    again = json.loads((tmp_path / 'merged' / 'results.json').read_text())
    assert again['methods'] == found['methods']
    assert 'FN2EN' in (tmp_path / 'merged' / 'results.txt').read_text()


@pytest.fixture
def parts(tmp_path):
    return [write(tmp_path / f't{k}', {f'fold{k}': {'fn2en': (9, 1)}}, fold=str(k)) for k in (0, 1)]


def merge_into(folder, parts):
    report_table.merge(folder, *report_table.joined(parts), report_table.joined_folds(parts), parts)


def test_a_fuller_result_is_not_replaced(parts, tmp_path):
    merge_into(tmp_path / 'merged', parts[:1])
    merge_into(tmp_path / 'merged', parts)  # which holds more
    before = (tmp_path / 'merged/results.json').read_bytes()
    with pytest.raises(UserError, match='merged holds fold1 of fn2en, which would be lost: name the workdirs of all'):
        merge_into(tmp_path / 'merged', parts[:1])
    assert (tmp_path / 'merged/results.json').read_bytes() == before
    merge_into(tmp_path / 'merged', parts[::-1])


def test_other_encoders_make_no_other_experiment(parts, tmp_path):
    for k, part in enumerate(parts):
        config = json.loads((part / 'config.json').read_text())
        config['data_fingerprint'] = {'expressions': 'a', 'stored_bytes': str(1000 + k)}
        (part / 'config.json').write_text(json.dumps(config))
    merge_into(tmp_path / 'merged', parts)
    merge_into(tmp_path / 'merged', parts[::-1])
    assert json.loads((tmp_path / 'merged/config.json').read_text())['data_fingerprint'] == {'expressions': 'a'}


@pytest.mark.parametrize('trace', ['metrics.jsonl', 'fold0/stage1/', 'face_net/12/'])
def test_nothing_is_joined_into_a_workdir(parts, tmp_path, trace):
    link = tmp_path / 'link'
    link.symlink_to(parts[1])
    for folder in (parts[0], link):
        with pytest.raises(UserError, match='is one of the workdirs to be joined'):
            merge_into(folder, parts)
    place = tmp_path / 'run' / trace
    place.parent.mkdir(parents=True)
    place.mkdir() if trace.endswith('/') else place.touch()
    with pytest.raises(UserError, match='run is the workdir of a run of its own'):
        merge_into(tmp_path / 'run', parts)
    assert not (tmp_path / 'run/results.json').exists()


def test_folds_that_some_methods_lack_are_told(tmp_path):
    folds = {'fold0': {'fn2en': (9, 1), 'scratch': (8, 2)}, 'fold1': {'scratch': (5, 5)}}
    _, found = report_table.joined([write(tmp_path / 'run', folds)])
    assert report_table.missing(FOLDS, found) == ['fold1 of fn2en', 'fold2']


@pytest.mark.parametrize('name', table_formats.FORMATS)
def test_figures_on_validation_images_are_shown_where_there_are_any(whole, name, capsys):
    keys = ('methods', 'fn2en', 'folds')
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(format=name):
        report_table.main([str(whole)])
        assert 'validation' not in capsys.readouterr().out
        for fold, hits in (('fold0', 9), ('fold1', 6)):
            spoil(whole, *keys, fold, 'validation', value=score(hits, 10 - hits))
        report_table.main([str(whole)])
    (line,) = [line for line in capsys.readouterr().out.split('\n') if 'FN2EN, validation images' in line]
    spread = '75.0 $\\pm$ 21.2' if name == 'latex' else '75.0 ± 21.2'  # by hand: 90 and 60
    assert spread in line
    assert literature.on_validation(report_table.joined([whole])[1])[0][2:] == ('50.0 ± 0.0', '', '', '2')


def test_workdirs_of_two_experiments_are_not_joined(whole, tmp_path):
    other = write(tmp_path / 'other', {'fold2': {'fn2en': (9, 1)}}, learning_rate=0.2)
    with pytest.raises(UserError, match=r'other is of another experiment than .*learning_rate \(0.1 .*0.2'):
        report_table.joined([whole, other])
    same = write(tmp_path / 'same', {'fold1': {'fn2en': (9, 1)}})
    with pytest.raises(UserError, match='both hold fold1 of fn2en'):
        report_table.joined([whole, same])
    with pytest.raises(UserError, match='does not exist'):
        report_table.joined([tmp_path / 'nowhere'])
    (other / 'folds.json').write_text('{"folds": [{"name": "fold2", "test_files": ["b.png"]}]}')
    with pytest.raises(UserError, match='other has other folds'):
        report_table.joined_folds([whole, other])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'results.json is damaged'),
        ('{}', 'holds no results'),
        ('{"methods": {}, "class_names": []}', 'holds no results'),
    ],
)
def test_a_workdir_without_results_is_refused(whole, content, message):
    (whole / 'results.json').write_text(content)
    with pytest.raises(UserError, match=message):
        report_table.joined([whole])


def spoil(folder, *keys, value=None):
    """Replaces one entry of results.json, or takes it away."""
    content = json.loads((folder / 'results.json').read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    if value is None:
        del place[keys[-1]]
    (folder / 'results.json').write_text(json.dumps(content))


FIGURES = ('methods', 'fn2en', 'folds', 'fold0')


@pytest.mark.parametrize(
    ('keys', 'value', 'fault'),
    [
        (('methods',), {'scratch': {}}, "there are no folds of a method 'scratch'"),
        (('methods',), {'scratch': []}, "there are no folds of a method 'scratch'"),
        (('methods',), [1], 'it has no methods'),
        (('methods', 'other'), {'folds': {'fold0': {}}}, "there are no folds of a method 'other'"),
        (('methods', 'fn2en', 'folds'), {}, "there are no folds of a method 'fn2en'"),
        (FIGURES, 'x', 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'confusion_matrix'), None, 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'confusion_matrix'), [[1, 0], [0, 1]], 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'confusion_matrix'), [['1'] * 8] * 8, 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'confusion_matrix'), [[0] * 8] * 8, 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'accuracy'), float('nan'), 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'macro_f1'), None, 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'sequence_accuracy'), 0.5, 'fold0 of fn2en has no figures'),
        ((*FIGURES, 'validation'), {'accuracy': 1}, 'fold0 of fn2en has no figures'),
        (('class_names',), 'abcdefgh', 'it has no class names'),
        (('seconds',), [1], 'its seconds are no numbers'),
        (('commands',), [1], 'its commands are no texts'),
    ],
)
def test_damaged_results_are_refused(whole, keys, value, fault):
    spoil(whole, *keys, value=value)
    for tool in (report_table.joined, lambda folders: compare.main([str(folder) for folder in folders])):
        with pytest.raises(UserError) as caught:
            tool([whole])
        assert (
            str(caught.value) == f'{whole}/results.json is damaged ({fault}); delete it and run the same command again'
        )


@pytest.mark.parametrize('content', ['[]', '{}', '{"data": 1, "folds": 1}', '{"data": {}, "folds": [1]}'])
def test_damaged_settings_and_folds_are_refused(whole, content):
    (whole / 'folds.json').write_text(content)
    with pytest.raises(UserError, match=r'folds\.json is damaged'):
        report_table.joined_folds([whole])
    (whole / 'config.json').write_text(content)
    with pytest.raises(UserError, match=r'config\.json is damaged'):
        report_table.joined([whole])


def test_a_set_that_nobody_published(tmp_path):
    run = write(tmp_path / 'mine', {'fold0': {'scratch': (1, 1)}}, source='csv')
    title, found = literature.beside_published(*report_table.joined([run]))
    assert title == 'csv, 8 classes'
    assert found == [('Train from scratch (BN)', '50.0', '50.0', '', '', '1')]


@pytest.mark.parametrize('name', table_formats.FORMATS)
def test_every_format_holds_every_number(name, whole):
    title, found = literature.beside_published(*report_table.joined([whole]))
    text = table_formats.FORMATS[name](title, [literature.COLUMNS, *found])
    for row in found:
        assert all(cell.replace('±', r'$\pm$' if name == 'latex' else '±') in text for cell in row)
    if name == 'csv':
        assert rows(text)['FN2EN'] == ['80.0 ± 14.1', '50.0 ± 0.0', '96.8', '-16.8', '2']
    if name == 'latex':
        assert text.count(r'\\') == len(found) + 1
    if name == 'markdown':
        assert len({line.count('|') for line in text.split('\n')[2:]}) == 1


def test_numbers_of_the_paper():
    """Those of the paper's tables that its text repeats: FN2EN leads everything it is compared with."""
    for key, paper in literature.PUBLISHED.items():
        if paper.methods:
            lead = paper.methods['fn2en'] - max([0, *paper.others.values()])
            assert lead > 0, key
    assert literature.published('sfew_frames', 7, '').methods['fn2en'] == 48.19
    assert literature.published('sfew', 7, 'fer2013').methods['fn2en'] == 55.15
    assert literature.published('affectnet_npy', 7, '') is literature.published('affectnet', 7, '')
    assert literature.published('csv', 7, '') is None


def test_published_numbers_are_of_class_counts_that_a_set_is_used_with():
    for source, classes, extra in literature.PUBLISHED:
        assert classes in protocols.PROTOCOLS[source].classes
        assert extra in ('', *protocols.PROTOCOLS)


@pytest.mark.parametrize(
    ('source', 'classes', 'row', 'protocol'),
    [
        ('ckplus', 7, ('FMPN', '98.06'), 'fold_rule=blocks'),
        ('mmi', 6, ('FMPN', '82.74'), '208 clips'),
        ('affectnet', 7, ('FMPN (own split)', '61.52'), 'contempt in place of neutral'),
        ('affectnet_npy', 7, ('FMPN (own split)', '61.52'), 'contempt in place of neutral'),
    ],
)
def test_numbers_of_fmpn_stand_where_they_belong(tmp_path, source, classes, row, protocol):
    names = list(protocols.PROTOCOLS[source].classes[classes])
    run = write(tmp_path / 'run', {'fold0': {'scratch': (9, 1)}}, source=source, names=names)
    title, found = literature.beside_published(*report_table.joined([run]))
    assert title.startswith(f'{source}, {classes} classes; published: ')
    assert protocol in title
    assert [(cells[0], cells[3]) for cells in found] == [('Train from scratch (BN)', ''), row]
    assert 'FMPN' not in str([literature.published(source, other, '') for other in {6, 7, 8} - {classes}])


def test_means_of_the_folds_of_fmpn():
    """The averages are those of the accuracies that its authors give for each fold, to three places."""
    ckplus = (0.885, 1, 0.921, 1, 1, 1, 1, 1, 1, 1)
    mmi = (0.778, 0.731, 0.667, 0.744, 0.857, 0.855, 0.958, 0.889, 1, 0.795)
    for key, folds in (('ckplus', 7, ''), ckplus), (('mmi', 6, ''), mmi):
        assert literature.PUBLISHED[key].others['FMPN'] == pytest.approx(100 * np.mean(folds), abs=0.05)
