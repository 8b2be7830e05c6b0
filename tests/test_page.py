"""The page of a run: every number it shows, what it must never load, and what it does with hostile words."""

import base64
import csv
import html.parser
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import base
from fn2en_jax import embedded, experiment, page, plots, prediction_table, results, stages
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from tests import workdirs

ROOT = Path(__file__).parents[1]
VOID = {'meta', 'link', 'img', 'br'}


class Page(html.parser.HTMLParser):
    """The elements of a page, its tables by caption, and whether every element is closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ''
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ''
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), (tag, attrs)  # no attribute twice
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == 'table':
            self._rows, self._caption = [], ''
        elif tag == 'tr':
            self._rows.append([])
        elif tag in ('td', 'th'):
            self._rows[-1].append('')

    def handle_startendtag(self, tag, attrs):
        assert 'svg' in self._open or tag in VOID, tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f'</{tag}> closes something else'
        if tag == 'table':
            assert self._caption, 'a table without a caption'
            self.tables.setdefault(self._caption, []).extend(self._rows)

    def handle_data(self, data):
        self.text += data
        if 'caption' in self._open:
            self._caption += data
        elif self._open and self._rows and {'td', 'th'} & set(self._open[-3:]):
            self._rows[-1][-1] += ('|' if self._open[-1] == 'small' else '') + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def table(self, words: str, number: int = 0) -> dict[str, list[str]]:
        """Rows by their first cell of the table whose caption holds the words."""
        found = [rows for caption, rows in self.tables.items() if words in caption]
        return {row[0]: row[1:] for row in found[number]}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory) -> Path:
    folder = workdirs.write(tmp_path_factory.mktemp('page') / 'work')
    workdirs.visualise(folder)
    return folder


@pytest.fixture(scope='module')
def found(workdir) -> dict:
    return json.loads((workdir / 'results.json').read_text())


@pytest.fixture(scope='module')
def text(workdir) -> str:
    return page.write(workdir, workdirs.images()).read_text()


@pytest.fixture(scope='module')
def drawn(text) -> Page:
    return Page(text)


def test_results_are_those_of_results_json(drawn, found):
    table = drawn.table('mean over folds')
    for name, method in found['methods'].items():
        cells = [results.spread(method, figure) for figure in results.SPREAD]
        assert table[results.TITLES[name]] == [*cells, '80', '2']
    assert '±' in cells[0]


def test_confusion_matrices_are_those_of_results_json(drawn, found):
    rows = drawn.tables['80 test images of 2 folds; share in percent']  # of three methods, one after the other
    body = [row for row in rows if row[0] in workdirs.CLASSES]
    expected = [
        [name, *(f'{count}|{100 * count / sum(counts):.1f}' for count in counts)]
        for method in workdirs.METHODS
        for name, counts in zip(workdirs.CLASSES, found['methods'][method]['confusion_matrix'], strict=True)
    ]
    assert body == expected
    shades = [attrs['style'] for tag, attrs in drawn.elements if tag == 'td' and 'style' in attrs]
    first = found['methods']['scratch']['confusion_matrix'][0]
    assert shades[0] == f'--share: {first[0] / sum(first):.3f}'


def test_classes_and_folds_are_those_of_results_json(drawn, found):
    classes = drawn.table('Accuracy per class')
    for name in workdirs.CLASSES:
        figures = [found['methods'][method]['per_class_accuracy'][name] for method in workdirs.METHODS]
        assert classes[name][1:] == [f'{100 * figure:.1f}' for figure in figures]
    for name, method in found['methods'].items():
        table = drawn.table(f'{results.TITLES[name]}, in percent')
        for fold, figures in method['folds'].items():
            assert table[fold] == ['40', *(f'{100 * figures[figure]:.1f}' for figure in results.SPREAD)]
        assert table['mean ± sd'] == ['80', *(results.spread(method, figure) for figure in results.SPREAD)]
        assert table['pooled'] == ['', *(f'{100 * method[figure]:.1f}' for figure in results.SPREAD)]


def test_rows_seconds_settings_and_versions_are_there(drawn, found):
    assert drawn.table('Stage 1')['fold1'] == ['3', '30', '1.3', '0.731', '0.611']
    assert drawn.table('Face net')['shared by all'] == ['3', '30', '0.3', '0.75']
    seconds = drawn.table('compiling included')
    assert {stage: float(cells[0]) for stage, cells in seconds.items() if stage != 'stage'} == found['seconds']
    settings = drawn.table('config.json')
    assert settings['note'] == ['"</td><script>"']
    assert settings['data.source'] == ['"csv"']
    for words in (*found['versions'].values(), found['commands'][0], '0:26 (25.7 seconds)'):
        assert words in drawn.text
    counts = drawn.table('to train on + to test')
    assert counts['fold0'] == ['13 + 14', '14 + 13', '13 + 13', '40 + 40']


def test_mistakes_are_the_most_confident_ones(workdir, drawn, text):
    tables = [
        prediction_table.read(page.predictions(workdir, fold, 'fn2en'), workdirs.CLASSES) for fold in workdirs.FOLDS
    ]
    wrong = np.concatenate(
        [table.probabilities.max(1)[np.asarray(table.predicted) != table.labels] for table in tables]
    )
    shown = text[text.index('<h3>FN2EN</h3>', text.index('id="mistakes"')) :]
    captions = re.findall(r'<figcaption><b>(.*?)</b>([\d.]+) %<br>true: (.*?)\n', shown)
    expected = [f'{100 * p:.1f}' for p in np.sort(wrong)[::-1][: page.MISTAKES]]
    assert [caption[1] for caption in captions] == expected
    assert all(truth != prediction for prediction, _, truth in captions)
    assert f'{len(wrong)} of 80 images wrong' in drawn.text


def test_the_picture_of_a_mistake_is_that_image(workdir):
    """A face of one grey, found again in its picture on the page."""
    examples = workdirs.images()
    level = (np.arange(len(examples)) * 3).astype(np.uint8)
    grey = np.broadcast_to(level[:, None, None, None], (len(examples), 40, 40, 1)).copy()
    shown = page.content(workdir, type(examples)(grey, *_rest(examples)), faces=True, missing='')['mistakes']['scratch']
    for entry in shown['entries']:
        number = examples.files.index(entry['file'])
        data = base64.b64decode(shown['pictures'][entry['file']].partition(',')[2])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (40, 40)
            assert abs(int(np.asarray(picture.convert('L')).mean()) - int(level[number])) <= 1
        assert examples.class_names[examples.labels[number]] == entry['truth']


def _rest(examples):
    return examples.labels, examples.class_names, examples.subjects, examples.files


def test_at_most_24_mistakes_and_96_pixels(drawn, workdir):
    shown = page.content(workdir, workdirs.images(), faces=True, missing='')['mistakes']
    assert all(len(found['entries']) <= 24 for found in shown.values())
    assert embedded.face(np.zeros((224, 224, 3), np.uint8)).startswith('data:image/jpeg;base64,')
    uri = embedded.face(np.full((224, 224, 1), 7, np.uint8))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))) as picture:
        assert picture.size == (96, 96)


def test_words_of_others_are_escaped(text, drawn):
    assert '<script' not in text
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text
    assert not re.search(r'<img[^>]*https?:', text)
    assert workdirs.CLASSES[1] in drawn.text


def test_nothing_is_loaded_from_anywhere(drawn, text):
    for tag, attrs in drawn.elements:
        assert tag not in ('script', 'iframe', 'object', 'embed', 'base', 'form', 'audio', 'video')
        for name, value in attrs.items():
            assert not name.startswith('on')
            if name in ('src', 'href', 'srcset', 'poster', 'action', 'data', 'xlink:href'):
                assert value.startswith(('data:', '#')), (tag, name, value)
            assert 'url(' not in value or re.search(r'url\(#\w+\)', value)
    style = text[text.index('<style>') : text.index('</style>')]
    assert 'url(' not in style
    assert '@import' not in style
    [policy] = [meta['content'] for meta in drawn.all('meta') if meta.get('http-equiv') == 'Content-Security-Policy']
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")


def test_the_page_can_be_read_by_everybody(drawn):
    assert [attrs['lang'] for attrs in drawn.all('html')] == ['en']
    assert any(meta.get('name') == 'viewport' for meta in drawn.all('meta'))
    assert all(image['alt'].strip() for image in drawn.all('img'))
    assert len(drawn.all('img')) > 30
    assert all(svg['role'] == 'img' and 'At the end' in svg['aria-label'] for svg in drawn.all('svg'))
    assert len(drawn.all('svg')) == 4
    assert all(head['scope'] in ('col', 'row') for head in drawn.all('th'))
    levels = [int(tag[1]) for tag, _ in drawn.elements if re.fullmatch(r'h\d', tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attrs['id'] for _, attrs in drawn.elements if 'id' in attrs]
    assert len(set(ids)) == len(ids)
    links = [attrs['href'] for attrs in drawn.all('a')]
    assert links
    named = set(ids)
    for _, attrs in drawn.elements:
        for name in ('href', 'xlink:href', 'aria-labelledby', 'clip-path'):
            target = re.search(r'#?(\w[\w-]*)', (attrs.get(name) or '').removeprefix('url(').removeprefix('#'))
            if target and not (attrs.get(name) or '').startswith('data:'):
                assert target[1] in named, attrs


def test_without_faces_nothing_shows_the_data(workdir, tmp_path):
    place = page.write(workdir, workdirs.images(), faces=False, output=tmp_path / 'public.html')
    shown = Page(place.read_text())
    assert [image['alt'] for image in shown.all('img')] == ['Seven inputs']
    assert place.read_text().count('data:image') == 1
    assert 'left out of this page on request' in shown.text
    assert 'faces.png: shows images of the data set' in shown.text
    assert not (workdir / 'public.html').exists()


def test_the_same_workdir_gives_the_same_page(workdir, text):
    assert page.write(workdir, workdirs.images()).read_text() == text


def test_an_old_workdir_and_one_without_curves_have_a_page(tmp_path):
    folder = workdirs.write(tmp_path / 'old', predicted=False)
    (folder / 'metrics.jsonl').unlink()
    shown = Page(page.write(folder, None).read_text())
    assert 'This workdir keeps no predictions' in shown.text
    assert not shown.all('svg')
    assert not shown.all('img')


GARBAGE = {'not JSON': b'\x7fELF\n', 'no UTF-8': b'\xff\xfe\n', 'no row': b'[1]\n{"fold": 1}\n', 'no line': b'garbage'}


@pytest.mark.parametrize('content', GARBAGE.values(), ids=GARBAGE)
def test_damaged_metrics_are_told_on_the_page(content, tmp_path):
    folder = workdirs.write(tmp_path / 'work', predicted=False)
    rows = (folder / 'metrics.jsonl').read_bytes()
    assert 'metrics.jsonl of the workdir' not in Page(page.write(folder, None).read_text()).text
    (folder / 'metrics.jsonl').write_bytes(content)
    shown = Page(page.write(folder, None).read_text())
    assert 'metrics.jsonl of the workdir' in shown.text
    assert not shown.all('svg')
    (folder / 'metrics.jsonl').write_bytes(rows + b'[1]\n')
    shown = Page(page.write(folder, None).read_text())
    assert '1 of its 22 rows are left out' in shown.text
    assert len(shown.all('svg')) == 4


def test_a_run_on_everything_has_a_page(tmp_path):
    folder = workdirs.write(tmp_path / 'everything', predicted=False)
    found = json.loads((folder / 'results.json').read_text())
    (folder / 'results.json').write_text(json.dumps({**found, 'methods': {}}))
    shown = Page(page.write(folder, workdirs.images()).read_text())
    assert 'nothing was left to test on' in shown.text
    assert len(shown.all('svg')) == 4


def test_the_paper_stands_beside_its_set(tmp_path, monkeypatch):
    monkeypatch.setitem(page.literature.PUBLISHED, ('ckplus', 3, ''), page.literature.PUBLISHED['ckplus', 8, ''])
    folder = workdirs.write(tmp_path / 'ckplus', source='ckplus')
    table = Page(page.write(folder, None).read_text()).table('1,308 images')
    method = json.loads((folder / 'results.json').read_text())['methods']['fn2en']
    assert table['FN2EN'][-2:] == ['96.8', f'{100 * method["mean"]["accuracy"] - 96.8:+.1f}']
    assert table['AUDN'] == ['–', '–', '–', '–', '–', '92.1', '–']
    assert table['method'][-2:] == ['published accuracy', 'difference']


def test_validation_images_have_figures_and_counts(tmp_path, found):
    folder = workdirs.write(tmp_path / 'work', predicted=False)
    told = json.loads(json.dumps(found))
    told['methods']['fn2en']['validation'] = found['methods']['scratch']
    (folder / 'results.json').write_text(json.dumps(told))
    divided = json.loads((folder / 'folds.json').read_text())
    divided['folds'][0]['validation_counts'] = dict.fromkeys(workdirs.CLASSES, 5)
    (folder / 'folds.json').write_text(json.dumps(divided))
    shown = Page(page.write(folder, None).read_text())
    expected = [results.spread(found['methods']['scratch'], figure) for figure in results.SPREAD]
    table = shown.table('on the validation images')
    assert table['FN2EN'] == [*expected, '80']
    assert len(table) == 2
    assert shown.table('to train on + for validation + to test')['fold0'][0] == '13 + 5 + 14'


def test_pictures_of_other_tools_are_not_trusted(tmp_path):
    folder = workdirs.write(tmp_path / 'work', predicted=False)
    (folder / 'secret.png').write_bytes(b'x')
    workdirs.visualise(
        folder,
        [
            {'file': '../secret.png'},
            {'file': 'link.png'},
            {'file': 'text.png'},
            {'file': 'index.json'},
            {'file': 'missing.png'},
            {'file': 'broken.png'},
            {'file': ['maximal.png']},
            {'file': 'maximal.png', 'title': 7},
        ],
    )
    place = folder / 'visualize'
    (place / 'link.png').symlink_to(folder / 'secret.png')
    Image.new('RGB', (9, 9)).save(place / 'text.png', 'JPEG')
    (place / 'broken.png').write_bytes((place / 'faces.png').read_bytes()[:-40])
    shown, left_out = embedded.pictures(place, faces=True)
    assert [picture.alt for picture in shown] == ['7']
    assert len(left_out) == 7
    assert left_out[0] == '../secret.png: is no PNG of that folder'
    Page(page.write(folder, None).read_text())
    assert embedded.pictures(place, faces=False)[0] == []  # who does not say shows data
    for content in ('[1]', '{}', '[', '\x00'):
        (place / 'index.json').write_text(content)
        assert embedded.pictures(place, faces=True)[0] == []
        assert len(embedded.pictures(place, faces=True)[1]) == 1


def test_large_pictures_are_made_smaller(tmp_path):
    workdirs.visualise(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'visualize/faces.png')
    shown, _ = embedded.pictures(tmp_path / 'visualize', faces=True)
    assert max(len(picture.uri) for picture in shown) <= embedded.PICTURE_BYTES


def test_curves_take_the_colours_of_the_page():
    svg = plots.stage_svg('stage2', workdirs._rows('stage2'))
    element = embedded.curve(svg, 'words "in" <quotes>', page.COLOURS)
    assert plots.INK in svg
    assert plots.INK not in element
    for colour in ('currentColor', 'var(--line)', 'var(--train', 'var(--test'):
        assert colour in element
    assert '#000000' not in element
    assert '<metadata' not in element
    assert '<style' not in element
    assert 'http' not in element
    assert 'aria-label="words &quot;in&quot; &lt;quotes&gt;"' in element


def test_predictions_come_back_as_written(tmp_path):
    logits = np.array([[800.0, 0.0], [0.0, np.log(3)], [-1.0, -1.0]])
    files = ('a,"b".png', 'new\nline.png', 'ü.png')
    table = tmp_path / 'predictions.csv'
    prediction_table.write(table, files, np.array([0, 0, 1]), logits, ('file', 'x'))  # a class may be called so
    back = prediction_table.read(table, ('file', 'x'))
    assert back.files == files
    assert back.labels.tolist() == [0, 0, 1]
    assert back.predicted.tolist() == [0, 1, 0]
    np.testing.assert_allclose(back.probabilities, [[1, 0], [0.25, 0.75], [0.5, 0.5]], atol=1e-6)
    for names in (('x', 'file'), ('file',), ('file', 'x', 'y')):
        with pytest.raises(UserError, match='no table of predictions of this run'):
            prediction_table.read(table, names)
    table.write_text(table.read_text() + 'c.png,x\n')
    with pytest.raises(UserError, match='delete it and run'):
        prediction_table.read(table, ('file', 'x'))


def tool(*flags: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
    return subprocess.run(
        [sys.executable, '-m', 'fn2en_jax.report_page', *flags],
        cwd=cwd,
        env=env | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_tool_works_from_anywhere_and_without_the_data(workdir, tmp_path):
    done = tool(f'--workdir={workdir}', '--output=out.html', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'Report: out.html\n'
    shown = Page((tmp_path / 'out.html').read_text())
    assert 'The pictures of the mistakes are not available: <nowhere>.csv: no such file' in shown.text
    assert {image['alt'] for image in shown.all('img')} == {'Nine faces', 'Seven inputs'}


def test_results_are_kept_when_the_page_cannot_be_drawn(tmp_path, found, monkeypatch):
    config, examples = base.get_config(), workdirs.images()
    run = experiment.Run(config, tmp_path, Data(examples, None, {}), (), {})
    with pytest.raises(UserError, match=r'config\.json does not exist'):  # what the page is drawn from is not there
        run._write(found)
    assert json.loads((tmp_path / 'results.json').read_text()) == found
    assert (tmp_path / 'results.txt').exists()


def test_settings_of_an_older_version_have_a_page_too(tmp_path):
    folder = workdirs.write(tmp_path / 'work')
    config = json.loads((folder / 'config.json').read_text())
    del config['data']['fold_rule'], config['report']['faces']
    with pytest.raises(UserError, match=r'older than this program.*fold_rule'):
        stages.open_labelled(config)


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    names = ('=1+1', "'=1+1", "'plain", '+a', '-b', '@c', 'joy')
    files = ('=cmd|.png', "''=x.png", "'", '-dash.png', '\ttab.png', 'a=b.png', '')
    table = tmp_path / 'predictions.csv'
    logits = np.eye(7)[::-1]
    prediction_table.write(table, files, np.arange(7), logits, names)
    with table.open(newline='') as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(('=', '+', '-', '@', '\t'))]
    back = prediction_table.read(table, names)
    assert back.files == files
    assert back.labels.tolist() == list(range(7))
    assert back.predicted.tolist() == list(range(7))[::-1]


def test_a_description_of_the_data_that_is_no_text_is_refused(tmp_path):
    folder = workdirs.write(tmp_path / 'work', predicted=False)
    (folder / 'dataset.txt').write_bytes(b'\xff')
    with pytest.raises(UserError, match=r'dataset\.txt is damaged'):
        page.write(folder, None)


@pytest.mark.parametrize(
    ('name', 'content'), [('results.json', None), ('results.json', '[]'), ('config.json', '{}'), ('folds.json', '{')]
)
def test_a_workdir_that_is_none_is_refused_in_a_line(name, content, tmp_path):
    folder = workdirs.write(tmp_path / 'work', predicted=False)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(UserError, match=f'{name}|not the workdir of a finished run'):
        page.write(folder, None)
    assert not (folder / 'report.html').exists()
