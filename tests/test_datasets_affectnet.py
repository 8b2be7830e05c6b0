"""AffectNet with lists: headers, formats, boxes and landmarks as they come."""

import collections

import numpy as np
import pytest

from fn2en_jax.data.datasets.affectnet import AFFECTNET, TRAINING
from fn2en_jax.data.records import EXPRESSIONS, Tree
from fn2en_jax.errors import UserError
from tests.trees import affectnet as trees


def find(root):
    return AFFECTNET.find(Tree(root))


def listed(lists, split):
    return [row for row in lists[split] if row.code < 8]


@pytest.mark.parametrize('header', trees.HEADERS)
@pytest.mark.parametrize('validation_header', trees.HEADERS)
def test_every_row_with_an_expression(tmp_path, header, validation_header):
    lists = trees.write(tmp_path, header=header, validation_header=validation_header)
    found = find(tmp_path)
    assert found.missing == found.skipped == ()
    rows = listed(lists, 'training') + listed(lists, 'validation')
    assert [record.file for record in found.records] == [row.file for row in rows]
    assert [record.label for record in found.records] == [trees.LABELS[row.code] for row in rows]
    assert [record.split for record in found.records] == ['train'] * 16 + ['validation'] * 16
    for record in found.records:
        assert record.image == tmp_path / 'Manually_Annotated_Images' / record.file
    assert {record.image.suffix for record in found.records} == set(trees.SUFFIXES)  # TIFFs as well
    assert found.edition.startswith('manually annotated, 16 + 16 with')
    assert found.edition.endswith('(left out: 4 none, 4 uncertain, 4 non-face)')


def test_boxes_and_five_points(tmp_path):
    trees.write(tmp_path)
    record = find(tmp_path).records[0]
    assert record.box == (5, 6, 30, 29)
    points = trees.points(record.file)
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    np.testing.assert_allclose(record.points, [*eyes, points[30], points[48], points[54]])


@pytest.mark.parametrize(
    ('box', 'bad'),
    [
        ((0, 0, -1, 10), False),
        ((-1, -1, -1, -1), False),
        (('NULL',) * 4, False),
        (('', '', '', ''), False),
        ((0, 0, 10, 0), True),
        ((-4, 0, 10, 10), True),
        ((0, 0, 'nan', 'inf'), True),
        (('left', 0, 10, 10), True),
    ],
)
def test_no_box(tmp_path, box, bad):
    """A negative size stands for none; what is no box at all is told."""
    lists = trees.write(tmp_path)
    row = lists['training'][0]
    trees.write_list(tmp_path, 'training', [trees.Row(row.file, row.code, box=box)])
    found = find(tmp_path)
    assert found.records[0].box is None
    assert found.skipped == (('1 lines with a box that is none: training.csv, line 2',) if bad else ())


@pytest.mark.parametrize(
    ('landmarks', 'bad'),
    [
        ('', False),
        ('NULL', False),
        ('1;2', True),
        (';'.join(['x'] * 136), True),
        (';'.join(['nan'] * 136), True),
        ('1;' * 136, True),
    ],
)
def test_no_landmarks(tmp_path, landmarks, bad):
    lists = trees.write(tmp_path)
    rows = [trees.Row(row.file, row.code, landmarks=landmarks) for row in lists['training'][:7]]
    trees.write_list(tmp_path, 'training', rows)
    found = find(tmp_path)
    assert found.records[0].points is None
    assert found.records[0].box
    places = ', '.join(f'training.csv, line {line}' for line in range(2, 7))
    assert found.skipped == ((f'7 lines with landmarks that are not 68: {places} ...',) if bad else ())


@pytest.mark.parametrize('outer', ['Manually_Annotated', 'AffectNet/Manually_Annotated_compressed'])
def test_outer_folders(tmp_path, outer):
    trees.write(tmp_path, outer=outer)
    assert len(find(tmp_path).records) == 32


def test_lists_and_pictures_from_different_archives(tmp_path):
    trees.write(tmp_path / 'all')
    (tmp_path / 'all' / 'Manually_Annotated_file_lists').rename(tmp_path / 'lists')
    root = tmp_path / 'all' / 'Manually_Annotated_Images'
    assert len(AFFECTNET.find(Tree(root, {tmp_path / 'lists': ''})).records) == 32


def test_another_case_or_extension_on_disk(tmp_path):
    lists = trees.write(tmp_path)
    pictures = tmp_path / 'Manually_Annotated_Images'
    row, tiff, twin = lists['training'][0], lists['training'][4], lists['training'][3]
    upper = (pictures / row.file).rename((pictures / row.file.upper()).with_suffix('.JPG'))
    png = (pictures / tiff.file).rename((pictures / tiff.file).with_suffix('.png'))
    for suffix in ('.jpg', '.PNG'):
        (pictures / twin.file).with_suffix(suffix).write_bytes(b'')  # the listed one is a .png, and wins
    records = {record.file: record.image for record in find(tmp_path).records}
    assert records[row.file] == upper
    assert records[tiff.file] == png
    assert records[twin.file] == pictures / twin.file


def test_a_picture_listed_more_than_once(tmp_path):
    lists = trees.write(tmp_path)
    file = lists['training'][0].file
    again = [trees.Row(file, 0), trees.Row(file, 6, box=(1, 2, 3, 4)), trees.Row(file, 9), trees.Row(file, 6)]
    trees.write_list(tmp_path, 'training', again)
    trees.write_list(tmp_path, 'validation', [trees.Row(file, 1)])
    records = find(tmp_path).records
    assert [record.file for record in records] == [file, f'{file}#2', f'{file}#3', f'{file}#4']
    assert [record.label for record in records] == ['neutral', 'anger', 'anger', 'happiness']
    assert {record.image for record in records} == {tmp_path / 'Manually_Annotated_Images' / file}
    assert records[1].box == (1, 2, 3, 4)


def test_named_but_not_on_disk(tmp_path):
    lists = trees.write(tmp_path)
    gone, none = lists['training'][1], lists['training'][8]
    assert (gone.code, none.code) == (1, 8)
    for row in (gone, none):
        (tmp_path / 'Manually_Annotated_Images' / row.file).unlink()
    found = find(tmp_path)
    assert found.missing == (gone.file,)  # the other one is not used anyway
    assert len(found.records) == 31


def test_the_automatic_part_is_passed_over(tmp_path):
    trees.write(tmp_path)
    trees.write_list(tmp_path, 'training', [trees.Row('1/x.jpg', 3)])  # as if a name were in both parts
    found = find(tmp_path)
    assert found.missing == ('1/x.jpg',)
    assert len(found.records) == 16


def test_names_that_lead_out_are_not_followed(tmp_path):
    root = tmp_path / 'root'
    lists = trees.write(root)
    inside = lists['training'][0].file
    (tmp_path / '1').mkdir()
    (tmp_path / '1' / 'secret.jpg').write_bytes(b'')
    names = [
        '../1/secret.jpg',
        '../../1/secret.jpg',
        f'{tmp_path}/1/secret.jpg',
        '..\\..\\1\\secret.jpg',
        f'x/../{inside}',
    ]
    trees.write_list(root, 'training', [trees.Row(name, 1) for name in names])
    found = find(root)
    assert [record.split for record in found.records] == ['validation'] * 16
    assert found.missing == tuple(name.replace('\\', '/') for name in names)


def test_backslashes_in_a_list(tmp_path):
    lists = trees.write(tmp_path)
    row = lists['training'][0]
    trees.write_list(tmp_path, 'training', [trees.Row(row.file.replace('/', '\\'), 0)])
    assert find(tmp_path).records[0].file == row.file


def test_bad_lines_are_named(tmp_path):
    lists = trees.write(tmp_path)
    path = trees.write_list(tmp_path, 'training', lists['training'])
    text = path.read_text()
    path.write_bytes(
        b'\xef\xbb\xbf' + text.encode() + b'1/a.jpg,1,2\n\n' + trees.Row('1/b.jpg', 11).text.encode() + b'\xff\n'
    )
    found = find(tmp_path)
    assert len(found.records) == 32
    assert [line.partition(': ')[0] for line in found.skipped] == [f'training.csv, line {n}' for n in (24, 26, 27)]
    assert "'11' is no code" in found.skipped[1]


def test_a_cell_of_absurd_size(tmp_path):
    lists = trees.write(tmp_path)
    path = trees.write_list(tmp_path, 'training', lists['training'])
    path.write_text(path.read_text() + 'x' * 200_000 + '\n' + lists['training'][0].text)
    found = find(tmp_path)
    assert len(found.records) == 33
    assert [line.partition(':')[0] for line in found.skipped] == ['training.csv, line 24']


def test_columns_in_another_order(tmp_path):
    lists = trees.write(tmp_path)
    row = lists['training'][1]
    path = trees.write_list(tmp_path, 'training', [])
    path.write_text(f'expression, #subDirectory_filePath\n1,{row.file}\n')
    record = find(tmp_path).records[0]
    assert (record.file, record.label, record.box, record.points) == (row.file, 'happiness', None, None)


def test_a_list_without_expressions(tmp_path):
    trees.write(tmp_path)
    trees.write_list(tmp_path, 'training', []).write_text('subDirectory_filePath,valence\n1/a.jpg,0\n')
    found = find(tmp_path)
    assert found.skipped == ('training.csv, line 1: the column expression is missing',)
    assert len(found.records) == 16


def test_a_missing_list_is_named(tmp_path):
    trees.write(tmp_path)
    (tmp_path / 'Manually_Annotated_file_lists' / 'validation.csv').unlink()
    found = find(tmp_path)
    assert found.missing == ('validation.csv of Manually_Annotated_file_lists',)
    assert len(found.records) == 16


def test_a_second_copy_of_a_list_is_not_read(tmp_path):
    lists = trees.write(tmp_path)
    trees.write_list(tmp_path / 'a_copy' / 'deep', 'training', lists['training'][:3])
    (tmp_path / 'training.csv').write_text(lists['training'][0].text)
    found = find(tmp_path)
    assert len(found.records) == 32
    assert len(found.skipped) == 2
    assert all('Manually_Annotated_file_lists/training.csv is read instead' in line for line in found.skipped)


def test_a_list_of_absurd_size(tmp_path, monkeypatch):
    trees.write(tmp_path)
    monkeypatch.setattr('fn2en_jax.data.datasets.affectnet.MAX_LIST_BYTES', 100)
    with pytest.raises(UserError):
        find(tmp_path)


@pytest.mark.parametrize('text', [None, 'a,b\n1,2\n', 'emotion,pixels,Usage\n0,1 2 3,Training\n', ''])
def test_another_set(tmp_path, text):
    if text is not None:
        (tmp_path / 'training.csv').write_text(text)
    with pytest.raises(UserError) as caught:
        find(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert 'not AffectNet' in message
    assert 'mohammadmahoor.com' in message
    assert '\n' not in message


def test_lists_without_pictures(tmp_path):
    trees.write_list(tmp_path, 'training', trees.rows('training'))
    trees.write_strays(tmp_path)
    with pytest.raises(UserError, match=r'no picture .*part\*\.rar'):
        find(tmp_path)


def test_published_counts():
    expected = find_expected()
    assert set(TRAINING) == set(EXPRESSIONS)
    assert sum(expected['train'].values()) == 287_651
    assert sum(expected['train'].values()) - expected['train']['contempt'] == 283_901  # seven classes
    assert expected['validation'] == dict.fromkeys(EXPRESSIONS, 500)


def find_expected():
    from fn2en_jax.data.datasets import affectnet

    counts = collections.defaultdict(dict)
    for name, count in affectnet._EXPECTED.items():
        split, label = name.split('/')
        counts[split][label] = count
    return counts


def test_archives_of_the_automatic_part_are_not_wanted():
    assert AFFECTNET.wants('x/Manually_Annotated_file_lists.zip')
    assert not AFFECTNET.wants('x/Automatically_annotated/Automatically_Annotated_file_list.zip')
