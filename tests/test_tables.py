"""Tables: everything a user can get wrong is named at once, with its line."""

import os

import numpy as np
import pytest
from PIL import Image

from fn2en_jax.data import tables
from fn2en_jax.errors import UserError

GOOD = """file,expression,subject,fold
a.png,anger,ann,0
b.png,joy,ann,0
c.png,anger,bob,1
d.png,joy,bob,1
"""


@pytest.fixture
def faces(tmp_path):
    """A folder with five sound images."""
    noise = np.random.RandomState(0).randint(0, 256, (5, 40, 40)).astype(np.uint8)
    for name, image in zip('abcde', noise, strict=True):
        Image.fromarray(image).save(tmp_path / f'{name}.png')
    return tmp_path


@pytest.fixture
def write(faces):
    def write(text, name='table.csv'):
        path = faces / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(read, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(*args, **options)
    return str(caught.value)


def test_good_table(write, faces):
    path = write(GOOD)
    table = tables.read_expressions(path)
    assert table.files == ('a.png', 'b.png', 'c.png', 'd.png')
    assert table.paths == tuple(faces / name for name in table.files)
    assert table.labels == ('anger', 'joy', 'anger', 'joy')
    assert table.subjects == ('ann', 'ann', 'bob', 'bob')
    assert table.folds == (0, 0, 1, 1)
    assert table.splits is None
    assert table.class_names == ('anger', 'joy')
    assert table.source == path
    assert table.lines == (2, 3, 4, 5)
    tables.verify(table)


def test_only_file_and_expression_are_needed(write):
    table = tables.read_expressions(write('file,expression\na.png,joy\nb.png,anger\n'))
    assert (table.subjects, table.folds, table.splits) == (None, None, None)


def test_split_column(write):
    table = tables.read_expressions(write('file,expression,split\na.png,joy,train\nb.png,anger,test\n'))
    assert table.splits == ('train', 'test')
    assert table.folds is None


def test_column_order_other_columns_spaces_bom_crlf_and_blank_lines_are_tolerated(write):
    text = (
        '\ufeff split , note, expression ,file\r\ntrain,x, joy ,a.png\r\n\r\n ,, ,\r\n'
        'test,"y,\nz", anger, b.png\r\ntest,,joy,c.png\r\n'
    )
    table = tables.read_expressions(write(text))
    assert table.files == ('a.png', 'b.png', 'c.png')
    assert table.labels == ('joy', 'anger', 'joy')
    assert table.lines == (2, 5, 7)  # the note in line 5 goes on in line 6


def test_names_of_expressions_are_kept_as_given(write):
    table = tables.read_expressions(write('file,expression\na.png,Happy\nb.png,happiness\nc.png,freude é\n'))
    assert table.class_names == ('Happy', 'freude é', 'happiness')


def test_given_class_names_keep_their_order(write):
    table = tables.read_expressions(write(GOOD), class_names=('joy', 'anger'))
    assert table.class_names == ('joy', 'anger')


def test_identities(write):
    table = tables.read_identities(write('file,identity\na.png,bob\nb.png,ann\nc.png,bob\n'))
    assert table.labels == table.subjects == ('bob', 'ann', 'bob')
    assert table.class_names == ('ann', 'bob')


def test_identities_ignore_fold_and_split(write):
    assert tables.read_identities(write('file,identity,fold\na.png,bob,?\nb.png,ann,?\n')).folds is None


# ------------------------------------------------------------------- the file as a whole


def test_no_such_table(faces):
    assert refusal(tables.read_expressions, faces / 'other.csv') == f'{faces}/other.csv: no such file'


@pytest.mark.parametrize('text', ['', '\n', 'file,expression\n', 'file,expression\n\n , \n'])
def test_empty_table(write, text):
    message = refusal(tables.read_expressions, write(text))
    assert 'no images' in message or 'found an empty line' in message
    assert '\n' not in message


def test_missing_columns_lists_those_found(write):
    message = refusal(tables.read_expressions, write('File,emotion\na.png,joy\n'))
    assert message.endswith("table.csv: line 1: no columns file, expression; found 'File', 'emotion'")


def test_missing_identity_column(write):
    assert 'no column identity' in refusal(tables.read_identities, write(GOOD))


@pytest.mark.parametrize('separator', [';', '\t'])
def test_other_separators_get_a_hint(write, separator):
    message = refusal(tables.read_expressions, write(GOOD.replace(',', separator)))
    assert 'separate the columns by commas' in message


def test_column_twice(write):
    assert 'column file is there 2 times' in refusal(
        tables.read_expressions, write('file,expression,file\na.png,joy,b.png\n')
    )


def test_fold_and_split_together(write):
    message = refusal(tables.read_expressions, write('file,expression,fold,split\na.png,joy,0,train\n'))
    assert 'line 1: columns fold and split exclude each other' in message


@pytest.mark.parametrize(
    ('data', 'where'),
    [
        (b'file,expression\na.png,joy\nb.png,col\xe8re\n', 'line 3: byte 0xe8'),
        ('file,expression\na.png,joy\n'.encode('utf-16'), 'line 1: byte 0xff'),
        ('file,expression\na.png,joy\n'.encode('utf-16-le'), 'line 1: holds a zero byte'),
    ],
)
def test_wrong_encoding_says_where(write, data, where):
    message = refusal(tables.read_expressions, write(data))
    assert where in message
    assert 'UTF-8' in message


def test_open_quotation_mark(write):
    message = refusal(tables.read_expressions, write('file,expression\na.png,joy\n"b.png,anger\nc.png,joy\n'))
    assert 'line 3: ' in message
    assert 'quotation mark' in message


# ------------------------------------------------------------------- single lines


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        ('e.png,joy,bob', '3 cells, but the first line names 4 columns'),
        ('e.png,joy,bob,1,1', '5 cells, but the first line names 4 columns'),
        (',joy,bob,1', 'file is empty'),
        ('e.png, ,bob,1', 'expression is empty'),
        ('e.png,nan,bob,1', 'expression is empty (nan)'),
        ('e.png,NaN,bob,1', 'expression is empty (NaN)'),
        ('e.png,joy,,1', 'subject is empty'),
        ('e.png,joy,bob,', 'fold is empty'),
        ('e.png,joy,bob,-1', "fold '-1' is not a whole number from 0 on"),
        ('e.png,joy,bob,1.5', "fold '1.5' is not a whole number from 0 on"),
        ('e.png,joy,bob,first', "fold 'first' is not a whole number from 0 on"),
        ('e.png,joy,bob,\u0661', "fold '\u0661' is not a whole number from 0 on"),
        (
            'e.png,joy,ann,1',
            "subject 'ann' is in fold 1 here and in fold 0 in line 2; keep a person in one fold",
        ),
        ('f.png,joy,bob,1', "'f.png': no such file"),
        ('sub\\e.png,joy,bob,1', "'sub\\\\e.png': no such file; write / between folders"),
        ('c.png,joy,bob,1', "'c.png': the same file as in line 4"),
        ('./x/../c.png,joy,bob,1', "'./x/../c.png': the same file as in line 4"),
        ('/e.png,joy,bob,1', "'/e.png': an absolute path"),
        ('C:\\e.png,joy,bob,1', "'C:\\\\e.png': an absolute path"),
        ('../e.png,joy,bob,1', "'../e.png': leads out of the folder"),
        ('x/../../e.png,joy,bob,1', "'x/../../e.png': leads out of the folder"),
        ('..\\e.png,joy,bob,1', "'..\\\\e.png': leads out of the folder"),
        ('.,joy,bob,1', "'.': is a folder"),
    ],
)
def test_one_bad_line_gives_one_clear_line(write, line, problem):
    message = refusal(tables.read_expressions, path := write(GOOD + line + '\n'))
    assert message.startswith(f'{path}: line 6: {problem}')
    assert '\n' not in message


def test_near_misses_are_accepted(write, faces):
    (faces / '..e.png').write_bytes((faces / 'e.png').read_bytes())  # a name, not a way out
    (faces / 'sub').mkdir()
    (faces / 'sub' / 'c.png').write_bytes((faces / 'e.png').read_bytes())  # the same name elsewhere
    text = GOOD + '..e.png,nano,Nan,1\nsub/c.png,joy,bob,1\n./e.png,joy,bob,01\n'
    table = tables.read_expressions(write(text))
    assert table.files[4:] == ('..e.png', 'sub/c.png', './e.png')
    assert table.labels[4] == 'nano'
    assert table.folds == (0, 0, 1, 1, 1, 1, 1)


def test_links_out_of_the_folder_are_refused_and_links_inside_are_followed(write, faces):
    outside = faces.parent / f'{faces.name}_outside'  # its name starts with the folder's
    outside.mkdir()
    (outside / 'x.png').write_bytes((faces / 'e.png').read_bytes())
    (faces / 'out').symlink_to(outside)
    (faces / 'file_out.png').symlink_to(outside / 'x.png')
    (faces / 'inside.png').symlink_to('e.png')
    (faces / 'again.png').symlink_to('c.png')
    lines = 'out/x.png,joy,bob,1\nfile_out.png,joy,bob,1\ninside.png,joy,bob,1\nagain.png,joy,bob,1\n'
    message = refusal(tables.read_expressions, write(GOOD + lines))
    assert message.splitlines()[1:] == [
        "  line 6: 'out/x.png': leads out of the folder of the table",
        "  line 7: 'file_out.png': leads out of the folder of the table",
        "  line 9: 'again.png': the same file as in line 4",
    ]


def test_a_table_reached_through_a_link_finds_its_images(write, faces, tmp_path_factory):
    write(GOOD)
    link = tmp_path_factory.mktemp('links') / 'faces'
    link.symlink_to(faces)
    assert len(tables.read_expressions(link / 'table.csv')) == 4


def test_special_files_are_refused(write, faces):
    os.mkfifo(faces / 'pipe.png')
    assert "'pipe.png': is no regular file" in refusal(tables.read_expressions, write(GOOD + 'pipe.png,joy,bob,1\n'))


@pytest.mark.parametrize('cell', ['valid', 'Train', 'TEST', '0'])
def test_unknown_split(write, cell):
    text = f'file,expression,split\na.png,joy,train\nb.png,anger,test\nc.png,joy,{cell}\n'
    message = refusal(tables.read_expressions, write(text))
    assert message.endswith(f"line 4: split '{cell}' is none of train, test, validation")


def test_person_in_train_and_test(write):
    text = 'file,expression,subject,split\na.png,joy,ann,train\nb.png,anger,bob,test\nc.png,joy,ann,test\n'
    message = refusal(tables.read_expressions, write(text))
    assert "line 4: subject 'ann' is in split test here and in split train in line 2" in message


# ------------------------------------------------------------------- landmarks


def with_points(*cells):
    names = ','.join(tables.POINTS)
    lines = [
        f'{name}.png,{label},{text}' for name, label, text in zip('abcd', ['joy', 'anger'] * 2, cells, strict=False)
    ]
    return '\n'.join([f'file,expression,{names}', *lines, ''])


TEN = '1,2,3,4,5,6,7,8,9,10'


@pytest.mark.parametrize('empty', [',' * 9, ' ,' * 9 + 'nan'])
def test_ten_empty_cells_stand_for_an_image_to_detect(write, empty):
    table = tables.read_expressions(write(with_points(TEN, empty, TEN)))
    five = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
    assert table.points == (five, None, five)
    assert tables.read_expressions(write(with_points(empty, empty))).points is None


def test_some_empty_cells_are_named(write):
    message = refusal(tables.read_expressions, write(with_points(TEN, TEN, TEN.replace('3,4', ','))))
    assert message.splitlines()[1:] == ['  line 4: right_eye_x is empty', '  line 4: right_eye_y is empty']


# ------------------------------------------------------------------- classes and folds


def test_unknown_class(write):
    message = refusal(tables.read_expressions, write(GOOD + 'e.png,Joy,bob,1\n'), class_names=('anger', 'joy'))
    assert message.endswith("line 6: unknown expression 'Joy'; the classes are anger, joy")


def test_class_without_images(write):
    message = refusal(tables.read_expressions, write(GOOD), class_names=('anger', 'fear', 'joy'))
    assert message.endswith("class 'fear' is empty: no image has this expression")


def test_one_class_only(write):
    message = refusal(tables.read_expressions, write('file,expression\na.png,joy\nb.png,joy\n'))
    assert "one class only: every expression is 'joy'" in message
    assert 'one class only' in refusal(tables.read_identities, write('file,identity\na.png,ann\nb.png,ann\n'))


def test_fold_without_test_image(write):
    text = GOOD.replace('bob,1', 'bob,2')
    assert 'fold 1 has no test image' in refusal(tables.read_expressions, write(text))


def test_folds_may_count_from_one(write):
    text = GOOD.replace('bob,1', 'bob,2').replace('ann,0', 'ann,1')
    assert tables.read_expressions(write(text)).folds == (1, 1, 2, 2)


def test_single_fold(write):
    assert 'every image is in fold 1' in refusal(tables.read_expressions, write(GOOD.replace('ann,0', 'ann,1')))


@pytest.mark.parametrize(('used', 'lacking'), [('train', 'test'), ('test', 'train')])
def test_split_with_one_side(write, used, lacking):
    message = refusal(tables.read_expressions, write(f'file,expression,split\na.png,joy,{used}\nb.png,anger,{used}\n'))
    assert message.endswith(f'no image has split {lacking}')


def test_evaluation_takes_what_there_is_but_no_unknown_class(write):
    path = write('file,expression,split\na.png,joy,test\nb.png,joy,test\n')
    table = tables.read_expressions(path, class_names=('anger', 'joy'), complete=False)
    assert table.class_names == ('anger', 'joy')
    assert 'unknown expression' in refusal(tables.read_expressions, path, class_names=('anger',), complete=False)


# ------------------------------------------------------------------- many problems


def test_all_problems_are_listed_in_the_order_of_their_lines(write):
    text = GOOD.replace('c.png', 'x.png').replace('b.png,joy', 'b.png,') + 'e.png,joy,ann,z\na.png,joy,ann,0\n'
    assert refusal(tables.read_expressions, path := write(text)).splitlines() == [
        f'{path}: 4 problems',
        '  line 3: expression is empty',
        "  line 4: 'x.png': no such file",
        "  line 6: fold 'z' is not a whole number from 0 on",
        "  line 7: 'a.png': the same file as in line 2",
    ]


@pytest.mark.parametrize(
    ('count', 'last'), [(20, "  line 25: 'missing19.png': no such file"), (21, '  ... and 1 more')]
)
def test_at_most_twenty_problems_are_listed(write, count, last):
    text = GOOD + ''.join(f'missing{k}.png,joy,bob,1\n' for k in range(count))
    lines = refusal(tables.read_expressions, write(text)).splitlines()
    assert lines[0].endswith(f': {count} problems')
    assert lines[20] == "  line 25: 'missing19.png': no such file"
    assert lines[-1] == last


def test_control_characters_cannot_forge_lines(write):
    message = refusal(tables.read_expressions, write(GOOD + '"x\n  line 1: all is well",joy,bob,1\n'))
    assert '\n' not in message


# ------------------------------------------------------------------- images


def test_verify_lists_bad_images_with_their_lines(write, faces):
    sound = (faces / 'e.png').read_bytes()
    (faces / 'a.png').write_bytes(b'')
    (faces / 'b.png').write_bytes(sound[: len(sound) // 2])
    (faces / 'd.png').write_text('no image')
    Image.new('L', (7, 30)).save(faces / 'e.png')
    path = write(GOOD + 'e.png,joy,bob,1\n')
    lines = refusal(tables.verify, tables.read_expressions(path)).splitlines()
    assert lines[0] == f'{path}: 4 problems'
    assert lines[1] == "  line 2: 'a.png': the file is empty (zero bytes)"
    assert lines[2].startswith("  line 3: 'b.png': the image is truncated or damaged")
    assert lines[3].startswith("  line 5: 'd.png': the file is no readable image")
    assert lines[4].startswith("  line 6: 'e.png': the image has 7 x 30 pixels")


def test_verify_of_a_file_that_vanished(write, faces):
    table = tables.read_expressions(write(GOOD))
    (faces / 'c.png').unlink()
    assert "line 4: 'c.png': cannot be read (No such file or directory)" in refusal(tables.verify, table)


def test_copies_are_warned_of(write, caplog):
    """Line 4 is a copy of line 2 of another person, and line 5 one with another label besides."""
    table = tables.read_expressions(write(GOOD))
    with caplog.at_level('WARNING', logger='absl'):
        tables.warn_of_copies(table, 'wxyz')
        assert not caplog.text
        tables.warn_of_copies(table, 'wxww')
    assert "2 images are byte for byte copies of others ('c.png' of 'a.png' ...)" in caplog.text
    assert '1 with another label, 2 in another fold or split' in caplog.text


def test_copies_in_a_folder_have_no_folds(folder, caplog):
    with caplog.at_level('WARNING', logger='absl'):
        tables.warn_of_copies(tables.read_folder(folder), 'ww_')
    assert "'joy/a.PNG' of 'anger/b.PNG'): 1 with another label, 0 in another fold" in caplog.text


# ------------------------------------------------------------------- a folder per class


@pytest.fixture
def folder(faces):
    for name, label in (('a', 'joy'), ('b', 'anger'), ('c', 'joy')):
        (faces / 'set' / label).mkdir(parents=True, exist_ok=True)
        (faces / f'{name}.png').rename(faces / 'set' / label / f'{name}.PNG')
    return faces / 'set'


@pytest.mark.parametrize('read', [tables.read_folder, tables.read_expressions])
def test_folder(folder, read):
    (folder / '.DS_Store').write_text('')
    (folder / 'joy' / 'Thumbs.db').write_text('')
    (folder / 'README.txt').write_text('')
    table = read(folder)
    assert table.files == ('anger/b.PNG', 'joy/a.PNG', 'joy/c.PNG')
    assert table.labels == ('anger', 'joy', 'joy')
    assert table.class_names == ('anger', 'joy')
    assert (table.subjects, table.folds, table.splits, table.lines) == (None, None, None, None)
    tables.verify(table)


def test_folder_per_person(folder):
    assert tables.read_identities(folder).subjects == ('anger', 'joy', 'joy')


def test_folder_problems_are_listed(folder, faces):
    (folder / 'empty').mkdir()
    (folder / 'joy' / 'notes.txt').write_text('')
    (folder / 'joy' / 'nested').mkdir()
    (faces / 'd.png').rename(folder / 'd.png')
    (folder / 'joy' / 'z.png').symlink_to(faces / 'e.png')
    assert refusal(tables.read_folder, folder).splitlines() == [
        f'{folder}: 5 problems',
        "  'd.png': an image outside the class folders",
        "  class 'empty' is empty: its folder holds no image",
        "  'joy/nested': a folder inside a class folder is not read",
        "  'joy/notes.txt': not an image by its name (.png .jpg .jpeg .jpe .bmp .tif .tiff .webp)",
        "  'joy/z.png': leads out of the folder of the table",
    ]


def test_folder_verify_names_the_file(folder):
    (folder / 'joy' / 'a.PNG').write_bytes(b'')
    message = refusal(tables.verify, tables.read_folder(folder))
    assert message == f"{folder}: 'joy/a.PNG': the file is empty (zero bytes)"


def test_folder_without_classes(tmp_path):
    assert 'no images: one sub-folder per class' in refusal(tables.read_folder, tmp_path)


def test_folder_with_one_class(folder):
    (folder / 'anger' / 'b.PNG').unlink()
    (folder / 'anger').rmdir()
    assert "one class only: every class is 'joy'" in refusal(tables.read_folder, folder)


def test_folder_with_an_unknown_class(folder):
    assert "unknown class 'joy'" in refusal(tables.read_folder, folder, class_names=('anger', 'Joy'))


def test_no_such_folder(tmp_path):
    assert refusal(tables.read_folder, tmp_path / 'x') == f'{tmp_path}/x: no such folder'


@pytest.mark.parametrize('name', ['an\x1b[31mger', 'an\u202eger', 'x' * 101, '"an\nger"'])
def test_a_class_that_cannot_be_printed_is_refused(write, faces, name):
    message = refusal(tables.read_expressions, write(GOOD.replace('anger', name)))
    assert 'line 2: expression' in message
    assert 'cannot be printed' in message or 'has 101 characters, more than 100' in message
    assert message.isprintable()  # said once, on one line
    if '"' not in name:
        (faces / 'folder' / name).mkdir(parents=True)
        (faces / 'a.png').rename(faces / 'folder' / name / 'a.png')
        assert f'class {tables.quoted(name)}: ' in refusal(tables.read_folder, faces / 'folder')
