"""`python -m fn2en_jax.predict` as a user meets it, and the parts that it is made of."""

import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fn2en_jax import annotation, predictions
from fn2en_jax.data import pictures, video
from fn2en_jax.errors import UserError
from fn2en_jax.predictions import Output, Prediction
from tests import untrained
from tests.scenes import SEEN, face, scene

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
FACE = Prediction('a.png', None, 0, (20.0, 30, 40, 40), ((30.0, 45), (50, 45)), 'eyes', 'joy', {'joy': 0.75, 'x': 0.25})
NAMES = ('joy', 'x')


@pytest.fixture(scope='module')
def net(tmp_path_factory) -> Path:
    return untrained.write(tmp_path_factory.mktemp('net') / 'work')


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(), newline='')))


def clip(path: Path, shades, code: str = 'MJPG', size=(64, 48)) -> Path:
    """A clip whose frames are of one shade each."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 24, size)
    for shade in shades:
        writer.write(np.full((size[1], size[0], 3), shade, np.uint8))
    writer.release()
    return path


@pytest.fixture
def album(tmp_path) -> Path:
    """A folder with two faces, a clip of 5 frames, nobody, a broken file, one in a sub-folder, and a text."""
    folder = tmp_path / 'album'
    (folder / 'sub').mkdir(parents=True)
    crowd, _ = scene((face(SEEN[0], 70), (20, 40)), (face(SEEN[1], 120), (160, 60)))
    Image.fromarray(crowd).save(folder / 'crowd.png')
    Image.fromarray(crowd[60:180, 160:280]).save(folder / 'sub' / '=1+1.png')
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(folder / 'nobody.bmp')
    clip(folder / 'clip.avi', range(50, 100, 10))
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0junk')
    (folder / 'notes.txt').write_text('x')
    return folder


def predict(*arguments: str, cwd: Path, cache: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'fn2en_jax.predict', *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(cache)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_folder_of_everything(net, album, tmp_path):
    done = predict(
        f'--workdir={net}',
        'album',
        '--every=2',
        '--output=rows.csv',
        '--annotated=album/seen',
        cwd=tmp_path,
        cache=net.parent / 'cache',
    )
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / 'rows.csv')
    assert [(row['file'], row['frame'], row['face'], row['problem'][:11]) for row in rows] == [
        ('album/broken.jpg', '', '', 'the file is'),
        ('album/clip.avi', '0', '', 'no face'),
        ('album/clip.avi', '2', '', 'no face'),
        ('album/clip.avi', '4', '', 'no face'),
        ('album/crowd.png', '', '0', ''),
        ('album/crowd.png', '', '1', ''),
        ('album/nobody.bmp', '', '', 'no face'),
        ('album/sub/=1+1.png', '', '0', ''),
    ]
    for row in rows:
        if not row['problem']:
            found = {name: float(row[f'p_{name}']) for name in untrained.CLASSES}
            assert sum(found.values()) == pytest.approx(1, abs=1e-4)
            assert row['expression'] == max(found, key=found.__getitem__)
    assert '7 pictures in ' in done.stderr
    assert '3 faces, in 2 of 6 (33.3%) of the pictures that can be read' in done.stderr
    assert '1 cannot be read; the first: album/broken.jpg' in done.stderr
    assert '1 other file passed over' in done.stderr
    [seconds, rate] = re.search(r'7 pictures in (.*) s: (.*) per second', done.stderr).groups()
    assert float(rate) == pytest.approx(7 / float(seconds), rel=0.1, abs=0.1)
    shares = re.search(r'time of all threads: decoding (.*)%, faces (.*)%, net (.*)%, drawing (.*)%', done.stderr)
    assert sum(map(int, shares.groups())) == pytest.approx(100, abs=2)
    assert all(0 <= int(share) < 100 for share in shares.groups())
    assert 'faces are aligned by the eyes' in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.stdout == ''
    seen = sorted(str(path.relative_to(album / 'seen')) for path in (album / 'seen').rglob('*.jpg'))
    frames = [f'album/clip.avi/00000{number}.jpg' for number in (0, 2, 4)]
    assert seen == [*frames, 'album/crowd.png.jpg', 'album/nobody.bmp.jpg', 'album/sub/=1+1.png.jpg']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['album', 'rows.csv']


SEVERAL = """
import contextlib, io, json, sys
from absl.testing import flagsaver
from fn2en_jax import commands, predict

for line in json.loads(sys.argv[1]):
    places, rest = commands.divide(['predict', *line])
    errors = io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stderr(errors):
        code = commands.run(lambda: predict.main(places), rest, '')
    print('DONE', json.dumps([code, errors.getvalue()]))
"""


def test_bad_input_is_one_line_and_code_2_and_nothing_is_written(net, album, tmp_path):
    workdir = f'--workdir={net}'
    (tmp_path / 'junk.safetensors').write_bytes(b'\x08\0\0\0\0\0\0\0{}')
    (tmp_path / 'empty').mkdir()
    cases = {
        'either --workdir=FOLDER or --net=FILE': ['album'],
        'name photographs': [workdir],
        'gone.png: no such file': [workdir, 'album', 'gone.png'],
        'no such workdir': ['--workdir=gone', 'album'],
        'workdir of a finished run': ['--workdir=empty', 'album'],
        'album/broken.jpg  the file is no readable image': [workdir, 'album/broken.jpg', '--output=rows.csv'],
        'junk.safetensors  the file': [workdir, 'junk.safetensors'],
        'empty: holds no picture': [workdir, 'empty'],
        'written as .csv or .jsonl': ['--net=junk.safetensors', 'album', '--output=rows.txt'],
        'is one of the files to look at': [workdir, 'album/notes.txt', '--output=album/notes.txt'],
        'write into another one': [workdir, 'album', '--annotated=album/'],
        'are faces already': [workdir, 'album', '--cropped', '--faces=box'],
        'batch_size': [workdir, 'album', '--batch_size=0'],
        'batch_size=1000000': [workdir, 'album', '--batch_size=1000000'],
        'every': [workdir, 'album', '--every=none'],
        'faces': [workdir, 'album', '--faces=aligned'],
        'hat': [workdir, 'album', '--hat=1'],
        'cannot write gone/rows.csv': ['--net=junk.safetensors', 'album', '--output=gone/rows.csv'],
        'cannot write annotated pictures': [
            '--net=junk.safetensors',
            'album',
            '--output=rows.csv',
            '--annotated=album/notes.txt',
        ],
    }
    done = subprocess.run(
        [sys.executable, '-c', SEVERAL, json.dumps(list(cases.values()))],
        cwd=tmp_path,
        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(net.parent / 'cache')},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith('DONE')]
    for words, (code, said) in zip(cases, found, strict=True):
        errors = [line for line in said.splitlines() if not line.startswith(('looking: ', 'scratch net', 'faces are'))]
        assert (code, len(errors)) == (2, 1), said
        assert errors[0].startswith('error: ')
        assert words in errors[0]
    assert {path.name for path in tmp_path.iterdir()} - {'cache'} == {'album', 'empty', 'junk.safetensors', 'rows.csv'}
    assert [row['problem'][:28] for row in table(tmp_path / 'rows.csv')] == ['the file is no readable imag']
    assert not (album / 'seen').exists()


def test_ctrl_c_keeps_what_is_done_and_says_so(net, tmp_path):
    photograph = tmp_path / 'a.png'
    Image.fromarray(scene((face(SEEN[0], 70), (20, 40)))[0]).save(photograph)
    process = subprocess.Popen(
        [sys.executable, '-m', 'fn2en_jax.predict', f'--workdir={net}', *['a.png'] * 3000, '--output=rows.csv'],
        cwd=tmp_path,
        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'XDG_CACHE_HOME': str(net.parent / 'cache')},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    while 'picture 1/3000' not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # as `timeout` does
    *before, said = process.communicate(timeout=120)[1].splitlines()
    assert 'stopping after the pictures under way' in before
    assert process.returncode == 143
    rows = table(tmp_path / 'rows.unfinished.csv')
    assert 1 <= len(rows) < 3000
    assert said.startswith(f'stopped: after {len(rows)} pictures, whose rows are in rows.unfinished.csv')
    assert rows[-1]['expression'] in untrained.CLASSES
    assert not (tmp_path / 'rows.csv').exists()


ENDLESS = """
import sys
from fn2en_jax import commands

sys.exit(commands.run(lambda: [print(number) for number in range(10**6)], ['counts'], ''))
"""


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path):
    (tmp_path / 'counts.py').write_text(ENDLESS)
    done = subprocess.run(
        ['bash', '-c', f'{sys.executable} {tmp_path}/counts.py | head -1; echo ${{PIPESTATUS[0]}}'],
        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert (done.stdout, done.stderr) == ('0\n141\n', '')


# The parts.


def test_a_folder_is_listed_in_order_and_without_what_is_ours(album):
    (album / 'old').mkdir()
    (album / 'old' / pictures.MARK).touch()
    (album / 'new').mkdir()
    for place in ('old/a.png', 'new/a.png', '.hidden.png', os.fsdecode(b'caf\xe9\n.png')):
        (album / place).write_bytes(b'x')
    os.mkfifo(album / 'pipe.png')
    (album / 'out.png').symlink_to('/etc/hostname')
    found = pictures.listed([album, album / 'notes.txt'], own=album / 'new')
    names = [file.file.removeprefix(f'{album}/') for file in found.files]
    assert names == [
        'broken.jpg',
        r'caf\udce9\n.png',
        'clip.avi',
        'crowd.png',
        'nobody.bmp',
        'out.png',
        'sub/=1+1.png',
        'notes.txt',
    ]
    assert [file.clip for file in found.files].index(True) == 2
    assert [file.count(2) for file in found.files] == [1, 1, 3, 1, 1, 1, 1, 1]
    assert found.passed_over == 4  # the text, the pipe, and two that are ours


def test_what_cannot_be_read_in_a_folder_is_listed_and_the_rest_goes_on(album, monkeypatch):
    (album / 'gone.png').symlink_to('nowhere')
    (album / 'sub' / 'round.png').symlink_to('round.png')
    (album / 'locked').mkdir()
    (album / 'locked' / 'a.png').write_bytes(b'x')
    (album / 'moving.jpg').write_bytes(b'GIF89a' + bytes(40))
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith('locked'):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refusing)
    found = pictures.listed([album])
    problems = {}
    for file in found.files:
        for picture in file.pictures(5):
            try:
                picture.read()
            except UserError as error:
                problems[file.file.removeprefix(f'{album}/')] = str(error)
    assert len(found.files) == 9
    assert {name: problem[:29] for name, problem in problems.items()} == {
        'broken.jpg': 'the file is no readable image',
        'gone.png': 'cannot be read (No such file ',
        'locked': 'cannot be read as a folder (P',
        'moving.jpg': 'the file is a GIF, which is n',
        'sub/round.png': 'cannot be read (Too many leve',
    }
    assert found.passed_over == 1


def test_what_we_drew_is_not_read_when_it_is_named(album):
    for own in (album, album.parent):
        with pytest.raises(UserError, match='write into another one'):
            pictures.listed([album / 'sub'], own=own)
    (album / pictures.MARK).touch()
    for named in (album, album / 'sub'):
        with pytest.raises(UserError, match=f'were drawn by us; to have them read, delete {album}/{pictures.MARK}'):
            pictures.listed([named])


def test_folders_behind_links_are_read_once(album, tmp_path):
    (tmp_path / 'home').mkdir()
    for name in ('one', 'two'):
        (tmp_path / 'home' / name).symlink_to(album)
    (tmp_path / 'home' / 'three').symlink_to(album / 'sub')
    (tmp_path / 'home' / 'round').symlink_to(tmp_path)
    (album / 'sub' / 'out.png').symlink_to('/etc/hostname')
    found = pictures.listed([tmp_path / 'home'])
    names = [file.file.removeprefix(f'{tmp_path}/home/') for file in found.files]
    assert names == [f'one/{name}' for name in ('broken.jpg', 'clip.avi', 'crowd.png', 'nobody.bmp', 'sub/=1+1.png')]
    assert found.passed_over == 2  # the text, and the link to elsewhere


def test_names_that_no_file_can_have_are_refused_in_one_line():
    for name, words in (('x' * 5000, 'File name too long'), ('/etc/hostname/x', 'Not a directory'), ('a\0', 'no name')):
        with pytest.raises(UserError, match=words):
            pictures.listed([name])


@pytest.mark.parametrize(
    ('name', 'code'), [('a.avi', 'MJPG'), ('a.mp4', 'mp4v'), ('a.mkv', 'mp4v'), ('a.webm', 'VP80')]
)
def test_frames_of_a_clip(tmp_path, name, code):
    shades = list(range(20, 220, 20))
    path = clip(tmp_path / name, shades, code)
    found = dict(video.frames(path, 3))
    assert list(found) == [0, 3, 6, 9]
    for number, frame in found.items():
        assert frame.shape == (48, 64, 3)
        assert abs(float(frame.mean()) - shades[number]) < 6
    assert video.is_clip(path)


def test_a_clip_that_is_cut_short_gives_its_frames_and_then_says_so(tmp_path):
    whole = clip(tmp_path / 'a.avi', range(20, 220, 4)).read_bytes()
    path = tmp_path / 'b.avi'
    path.write_bytes(whole[: len(whole) // 2])
    *frames, last = pictures.Listed('b.avi', path, True).pictures()
    assert [picture.frame for picture in frames] == list(range(len(frames)))
    assert 10 < len(frames) < 40
    with pytest.raises(UserError, match=f'^ends after {len(frames)} frames; its header says 50'):
        last.read()
    for data, words in ((b'#EXTM3U\n/etc/hosts\n', 'no AVI'), (b'', 'no AVI'), (whole[:12], 'no frame')):
        path.write_bytes(data)
        (only,) = pictures.Listed('b.avi', path, True).pictures()
        with pytest.raises(UserError, match=words):
            only.read()


def test_a_table_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / 'rows.csv'
    path.write_text('before')
    output = Output(path, NAMES)
    output.write(FACE)
    assert path.read_text() == 'before'
    output.write(Prediction('b.png', problem='no face'))
    output.finish()
    whole, empty = table(path)
    assert list(whole) == predictions.columns(NAMES)
    assert ' '.join(filter(None, whole.values())) == 'a.png 0 20 30 40 40 30 45 50 45 eyes joy 0.75 0.25'
    assert {name: value for name, value in empty.items() if value} == {'file': 'b.png', 'problem': 'no face'}
    assert [file.name for file in tmp_path.iterdir()] == ['rows.csv']


def test_json_lines_say_what_the_rows_say(tmp_path):
    output = Output(tmp_path / 'rows.jsonl', NAMES)
    rows = [FACE, Prediction('b.png', 3, problem='no face')]
    for row in rows:
        output.write(row)
    output.finish()
    found = [json.loads(line) for line in (tmp_path / 'rows.jsonl').read_text().splitlines()]
    assert found == [row.to_dict() for row in rows]


def test_rows_that_are_kept_early_take_no_name_of_another_file(tmp_path):
    own = tmp_path / 'rows.unfinished.csv'
    own.write_text('mine')
    for name in ('rows.unfinished-2.csv', 'rows.unfinished-3.csv'):
        output = Output(tmp_path / 'rows.csv', NAMES)
        output.write(FACE)
        assert output.keep() == tmp_path / name
        assert len(table(tmp_path / name)) == 1
    Output(tmp_path / 'rows.csv', NAMES).discard()
    assert own.read_text() == 'mine'
    assert len(list(tmp_path.iterdir())) == 3


def test_places_that_cannot_be_written_are_known_before(tmp_path):
    (tmp_path / 'a.csv').mkdir()
    os.mkfifo(tmp_path / 'pipe.csv')
    (tmp_path / 'file').touch()
    names = {'x' * 300 + '.csv': 'too long', 'a.csv': 'is a folder', 'pipe.csv': 'no regular', 'file/b.csv': 'cannot'}
    for name, words in names.items():
        with pytest.raises(UserError, match=words):
            predictions.check_place(tmp_path / name)
    predictions.check_place(tmp_path / 'b.csv')
    for name in ('file', 'file/seen', 'x' * 300):
        with pytest.raises(UserError, match='cannot write annotated pictures here'):
            annotation.check_place(tmp_path / name)
    annotation.check_place(tmp_path / 'new' / 'seen')


def test_no_cell_is_a_formula(tmp_path):
    output = Output(tmp_path / 'rows.csv', ('=joy',))
    output.write(Prediction('a.png', face=0, box=(-3.0, 0, 9, 9), expression='=joy', probabilities={'=joy': 1.0}))
    output.finish()
    cells = [cell for row in table(tmp_path / 'rows.csv') for pair in row.items() for cell in pair]
    assert [cell for cell in cells if cell.startswith(('=', '+', '-', '@'))] == ['-3']  # a number


def test_what_is_drawn_stands_where_it_was_seen():
    canvas = np.zeros((100, 120, 1), np.uint8)
    drawn = np.asarray(annotation.draw(canvas, [FACE])).astype(int)
    yellow = drawn[..., 0] - drawn[..., 2] > 100
    rows, columns = np.nonzero(yellow)
    assert yellow[30:71, 20].all()
    assert yellow[30:71, 60].all()
    assert yellow[70, 20:61].all()
    assert (rows.max(), columns.min()) == (70, 20)
    for x, y in FACE.eyes:
        assert yellow[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].any()
        assert not yellow[int(y) + 8, int(x)]
    assert (drawn[10:30, 20:60].sum(2) == 0).any(), 'black text on the ground above the box'
    smaller = np.asarray(annotation.draw(canvas[:50, :60], [FACE], 0.5)).astype(int)
    assert (smaller[..., 0] - smaller[..., 2] > 100)[15:36, 10].all()
    blank = np.asarray(annotation.draw(canvas, [Prediction('a.png', problem='no face')])).astype(int)
    assert (blank[:20, :30, 0] - blank[:20, :30, 2] > 100).any()
    assert not (blank[30:, :, 0] - blank[30:, :, 2] > 100).any()


def test_annotated_pictures_stay_in_their_folder(tmp_path):
    album = annotation.Album(tmp_path / 'seen')
    image = np.zeros((40, 60, 3), np.uint8)
    long = 'é' * 120 + '.jpg'
    names = ['/abs/a.png', '../../a.png', './a.png', long, 'b/' + long, '..']
    places = [album.add(image, [Prediction(name, problem='no face')], 1.0) for name in names]
    places.append(album.add(image, [Prediction('a.png', 7, problem='no face')], 1.0))
    found = [str(place.relative_to(tmp_path / 'seen')) for place in places]
    assert [found[0], found[1], found[2], found[5], found[6]] == [
        'abs/a.png.jpg',
        'a.png.jpg',
        'a.png.2.jpg',
        'picture.jpg',
        'a.png.3/000007.jpg',
    ]
    assert len(set(found)) == len(found)
    assert all(place.is_file() for place in places)
    assert album.add(image, [Prediction('./a.png', problem='no face')], 1.0) == places[2]


def test_lines_are_seen_in_small_pictures():
    drawn = np.asarray(annotation.draw(np.zeros((100, 120, 1), np.uint8), [FACE])).astype(int)
    yellow = drawn[..., 0] - drawn[..., 2] > 100
    assert yellow[50, 20:22].all()
    assert not yellow[50, 22]
    (x, y), _ = FACE.eyes
    assert yellow[int(y), int(x) - 3]
    assert yellow[int(y), int(x) + 3]
    assert not yellow[int(y), int(x)]
