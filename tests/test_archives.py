"""Archives: what is sound comes out once and whole; what is hostile leaves nothing, inside or outside."""

import contextlib
import io
import multiprocessing
import os
import random
import re
import stat
import struct
import tarfile
import time
import zipfile

import pytest

from fn2en_jax.data import archives, records
from fn2en_jax.errors import UserError

FACES = {'set/anger/1.png': b'one', 'set/joy/2.png': b'two' * 1000}


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path, members, mode='w'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'downloads').mkdir()
    return tmp_path / 'downloads'


@pytest.fixture
def unpack(folder, tmp_path):
    def unpack(**options):
        return list(archives.unpack(folder, tmp_path / 'unpacked', **options))

    return unpack


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def refusal(unpack, tmp_path) -> str:
    """The one line of a refusal, after which nothing is left of the archive's members."""
    before = contents(tmp_path / 'downloads')
    with pytest.raises(UserError) as caught:
        unpack()
    assert '\n' not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ['downloads', 'unpacked']
    assert contents(tmp_path / 'downloads') == before
    assert os.listdir(tmp_path / 'unpacked') == ['.lock']
    return str(caught.value)


@pytest.mark.parametrize('name', ['a.zip', 'A.ZIP'])
def test_zip(folder, unpack, name):
    zipped(folder / 'deep' / name, FACES)
    (made,) = unpack()
    assert contents(made) == FACES


@pytest.mark.parametrize(
    ('name', 'mode'),
    [('a.tar', 'w'), ('a.tar.gz', 'w:gz'), ('a.tgz', 'w:gz'), ('a.tar.bz2', 'w:bz2'), ('a.TAR.XZ', 'w:xz')],
)
@pytest.mark.parametrize('form', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(folder, unpack, name, mode, form, monkeypatch):
    monkeypatch.setattr(tarfile.TarFile, 'format', form)
    members = FACES | ({} if form == tarfile.USTAR_FORMAT else {f'set/{"long" * 50}.png': b'three'})
    tarred(folder / name, members, mode)
    (made,) = unpack()
    assert contents(made) == members


def test_a_tar_is_opened_by_its_content(folder, unpack):
    tarred(folder / 'named_wrongly.tar', FACES, 'w:gz')
    (made,) = unpack()
    assert contents(made) == FACES


def test_empty_archives(folder, unpack):
    zipped(folder / 'a.zip', {})
    tarred(folder / 'b.tar', {})
    assert [contents(made) for made in unpack()] == [{}, {}]


def test_hidden_files_and_those_of_file_browsers_stay_inside(folder, unpack):
    junk = {'__MACOSX/set/._1.png': b'', 'set/.DS_Store': b'', 'set/Thumbs.db': b'', '.git/config': b''}
    zipped(folder / 'a.zip', junk | FACES)
    tarred(folder / 'b.tar', FACES | junk)
    zipped(folder / '.hidden.zip', FACES)
    zipped(folder / '__MACOSX' / 'c.zip', FACES)
    assert [contents(made) for made in unpack()] == [FACES, FACES]


def test_dots_and_backslashes_in_names(folder, unpack):
    zipped(folder / 'a.zip', {'./set\\anger/1.png': b'one'})
    (made,) = unpack()
    assert contents(made) == {'set/anger/1.png': b'one'}


def test_folders_keep_the_order_of_the_paths_and_names_are_told_apart(folder, unpack):
    zipped(folder / 'b' / 'same.zip', {'b.png': b'b'})
    zipped(folder / 'a' / 'same.zip', {'a.png': b'a'})
    assert [contents(made) for made in unpack()] == [{'a.png': b'a'}, {'b.png': b'b'}]


def test_what_is_unpacked_is_used_again_until_the_archive_changes(folder, unpack):
    path = zipped(folder / 'a.zip', FACES)
    (first,) = unpack()
    (first / 'mark').touch()
    (second,) = unpack()
    assert second == first
    assert (second / 'mark').exists()
    os.utime(path, ns=(0, 1))
    (third,) = unpack()
    assert third != first
    assert contents(third) == FACES


def test_only_wanted_archives_are_opened(folder, unpack):
    zipped(folder / 'mine' / 'a.zip', FACES)
    zipped(folder / 'compound' / 'a.zip', {'no.png': b''})
    (folder / 'compound' / 'b.zip').write_bytes(b'damaged')
    (folder / 'compound' / 'c.rar').write_bytes(b'')
    (made,) = unpack(wanted=lambda name: 'compound' not in name.split('/'))
    assert contents(made) == FACES


def test_archives_inside_archives_become_folders(folder, unpack, tmp_path):
    inner = zipped(tmp_path / 'inner.zip', FACES).read_bytes()
    deeper = zipped(tmp_path / 'deeper.zip', {'aligned.zip': inner}).read_bytes()
    inner_tar = tarred(tmp_path / 'inner.tgz', FACES, 'w:gz').read_bytes()
    members = {'set/aligned.zip': inner, 'set/original.tgz': inner_tar, 'set/list.txt': b'1', 'compound/x.zip': inner}
    asked = []
    zipped(folder / 'a.zip', members | {'deeper.zip': deeper})
    tarred(folder / 'b.tar', members)
    first, second = unpack(wanted=lambda name: asked.append(name) or 'compound' not in name.split('/'))
    expected = {f'set/{name}/{file}': data for name in ('aligned.zip', 'original.tgz') for file, data in FACES.items()}
    expected |= {'set/list.txt': b'1', 'compound/x.zip': inner}
    assert contents(second) == expected
    assert contents(first) == expected | {'deeper.zip/aligned.zip': inner}  # one level and no more
    assert 'a.zip/set/aligned.zip' in asked


def test_the_target_may_lie_inside_the_folder(folder):
    zipped(folder / 'a.zip', {'set/1.png': b'', 'rest.zip': b'no archive'})
    kept = archives.unpack(folder, folder / 'own', wanted='a.zip/rest.zip'.__ne__)
    assert archives.unpack(folder, folder / 'own') == kept


def test_the_target_may_lie_behind_a_link(folder, tmp_path):
    zipped(folder / 'a.zip', {'set/1.png': b'', 'rest.zip': b'no archive'})
    (tmp_path / 'big').mkdir()
    (folder / 'big').symlink_to(tmp_path / 'big')
    kept = archives.unpack(folder, tmp_path / 'big' / 'own', wanted='a.zip/rest.zip'.__ne__)
    assert archives.unpack(folder, tmp_path / 'big' / 'own') == kept


def test_progress_counts_the_bytes_of_the_archive(folder, unpack, monkeypatch):
    monkeypatch.setattr(archives, '_PIECE', 1000)
    path = zipped(folder / 'a.zip', {f'{n}.png': os.urandom(5000) for n in range(4)}, zipfile.ZIP_STORED)
    seen = []
    unpack(progress=lambda *what: seen.append(what))
    size = path.stat().st_size
    assert {(name, total) for name, _, total in seen} == {(str(path), size)}
    done = [done for _, done, _ in seen]
    assert done == sorted(done)
    assert len(set(done)) > 4
    assert 20_000 <= done[-1] <= size


@pytest.mark.parametrize('form', ['zip', 'tar.gz'])
def test_progress_is_told_when_there_is_some(folder, unpack, form):
    members = {f'{n}.png': b'x' * 10 for n in range(500)}
    if form == 'zip':
        zipped(folder / 'a.zip', members, zipfile.ZIP_STORED)
    else:
        tarred(folder / 'a.tar.gz', members, 'w:gz')
    seen = []
    unpack(progress=lambda *what: seen.append(what))
    assert seen
    assert len(seen) == len(set(seen))
    if form == 'tar.gz':
        assert len(seen) == 1  # the whole archive is one piece


def test_links_to_archives_elsewhere_are_followed_where_the_user_made_them(folder, unpack, tmp_path):
    zipped(tmp_path / 'elsewhere' / 'a.zip', FACES)
    (folder / 'deeper').mkdir()
    (folder / 'deeper' / 'a.zip').symlink_to(tmp_path / 'elsewhere' / 'a.zip')
    assert unpack() == []
    (folder / 'a.zip').symlink_to(tmp_path / 'elsewhere' / 'a.zip')
    (extracted,) = unpack()
    assert extracted.name.startswith('a-')


def test_what_is_called_like_an_archive_and_is_no_file(folder, unpack, tmp_path):
    (folder / 'a.zip').symlink_to(tmp_path / 'nowhere.zip')
    os.mkfifo(folder / 'b.zip')
    assert unpack() == []


def test_an_archive_that_vanishes_is_named(folder, unpack, monkeypatch):
    monkeypatch.setattr(records, 'walk', lambda root, **_: iter([('a.zip', root / 'a.zip')]))
    with pytest.raises(UserError, match=r'/a\.zip: cannot be read \(No such file'):
        unpack()


# What only the user can open.


@pytest.mark.parametrize(
    ('names', 'first', 'command'),
    [
        (['a.rar'], 'a.rar', 'unrar x'),
        (['M.part2.rar', 'M.part10.rar', 'M.part1.rar'], 'M.part1.rar', 'unrar x'),
        (['M.part02.rar', 'M.part01.rar', 'M.part10.rar'], 'M.part01.rar', 'unrar x'),
        (['a.r00', 'a.r01', 'a.rar'], 'a.rar', 'unrar x'),
        (['a.7z'], 'a.7z', '7z x'),
        (['a.7z.002', 'a.7z.001'], 'a.7z.001', '7z x'),
        (['a.zip.002', 'a.zip.001'], 'a.zip.001', '7z x'),
        (['a.z01', 'a.z02', 'a.zip'], 'a.zip', '7z x'),
    ],
)
def test_closed_archives_are_named_with_a_command(folder, unpack, tmp_path, names, first, command):
    for name in names:
        (folder / name).write_bytes(b'?')
    zipped(folder / 'lists.zip', {'training.csv': b'1,2'})
    with pytest.raises(UserError) as caught:
        unpack()
    message = str(caught.value)
    assert message.startswith(f'{folder / first}: ')
    assert re.search(rf'unpack it yourself with: {command} .*{re.escape(str(folder / first))}', message)
    assert '\n' not in message
    assert 'more' not in message


def test_closed_archives_do_not_matter_once_something_is_unpacked(folder, unpack):
    (folder / 'M.part01.rar').write_bytes(b'?')
    (folder / 'Images').mkdir()
    (folder / 'Images' / '1.jpg').write_bytes(b'')
    assert unpack() == []
    (folder / 'Images' / '1.jpg').unlink()
    (folder / 'Images' / '.DS_Store').touch()
    (folder / 'ReadMe.TXT').touch()
    with pytest.raises(UserError, match='unrar'):
        unpack()
    zipped(folder / 'images.zip', FACES)
    assert len(unpack()) == 1


def test_several_closed_archives_and_awkward_names_in_the_command(folder, unpack):
    for name in ("it's mine.rar", 'z.7z', 'z.part2.rar'):
        (folder / name).write_bytes(b'?')
    with pytest.raises(UserError) as caught:
        unpack()
    assert f"""unrar x '{folder}/it'"'"'s mine.rar' {folder}/ (and so on for 1 more)""" in str(caught.value)


def encrypt(path):
    """Sets the flag that says so, in the local headers and in the directory."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + offset] |= 1
    path.write_bytes(data)


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, None])
def test_ciphers_and_rare_methods_are_for_other_programs(folder, unpack, tmp_path, method):
    path = zipped(folder / 'a.zip', FACES, zipfile.ZIP_DEFLATED if method is None else method)
    if method is None:
        encrypt(path)
    assert f'7z x -o{folder} {path}' in refusal(unpack, tmp_path)
    (folder / '1.jpg').touch()
    assert unpack() == []


def test_unwanted_archives_inside_others_are_not_asked_for(folder, unpack):
    zipped(folder / 'a.zip', {'set/list.txt': b'', 'set/other.rar': b'?'})
    assert len(unpack(wanted='a.zip/set/other.rar'.__ne__)) == 1


def test_a_closed_archive_inside_another_is_named(folder, unpack, tmp_path):
    locked = zipped(tmp_path / 'aligned.zip', FACES)
    encrypt(locked)
    zipped(folder / 'a.zip', {'set/aligned.zip': locked.read_bytes(), 'set/readme.txt': b''})
    with pytest.raises(UserError, match=r'7z x .*/set/aligned\.zip'):
        unpack()


# Hostile and damaged archives.

OUTSIDE = ['/etc/x.png', '../x.png', 'a/../../x.png', '..\\x.png', 'a/..', 'C:\\x.png', 'c:x.png', '\\\\host\\x.png']


@pytest.mark.parametrize('name', OUTSIDE)
@pytest.mark.parametrize(('make', 'file'), [(zipped, 'a.zip'), (tarred, 'a.tar')])
def test_members_that_lead_outside(folder, unpack, tmp_path, name, make, file):
    make(folder / file, {'fine.png': b'', name: b'evil'})
    message = refusal(unpack, tmp_path)
    assert str(folder / file) in message
    assert 'leads out of the folder' in message


def test_a_zero_byte_does_not_cut_a_name(folder, unpack, tmp_path):
    path = zipped(folder / 'a.zip', {'a.png#b': b''})
    path.write_bytes(path.read_bytes().replace(b'a.png#b', b'a.png\0b'))
    assert 'control characters' in refusal(unpack, tmp_path)


def test_names_of_several_lines(folder, unpack, tmp_path):
    tarred(folder / 'a.tar', {'a\nerror: b.zip': b''})
    assert 'control characters' in refusal(unpack, tmp_path)


@pytest.mark.parametrize('kind', ['SYMTYPE', 'LNKTYPE', 'CHRTYPE', 'BLKTYPE', 'FIFOTYPE'])
def test_links_and_devices_in_tars(folder, unpack, tmp_path, kind):
    with tarfile.open(folder / 'a.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('fine.png'))
        info = tarfile.TarInfo('evil.png')
        info.type, info.linkname = getattr(tarfile, kind), '/etc/passwd'
        archive.addfile(info)
    assert 'link or a device' in refusal(unpack, tmp_path)


@pytest.mark.parametrize('kind', [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_zips(folder, unpack, tmp_path, kind):
    info = zipfile.ZipInfo('evil.png')
    info.external_attr = (kind | 0o777) << 16
    zipped(folder / 'a.zip', {'fine.png': b'', info: b'/etc/passwd'})
    assert 'link or a device' in refusal(unpack, tmp_path)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(
    'names', [('a.png', 'A.PNG'), ('a', 'a/b.png'), ('a/b.png', 'A'), ('\u00e9.png', 'e\u0301.png')]
)
@pytest.mark.parametrize(('make', 'file'), [(zipped, 'a.zip'), (tarred, 'a.tar')])
def test_names_that_meet_on_some_disks(folder, unpack, tmp_path, names, make, file):
    make(folder / file, dict.fromkeys(names, b'x'))
    assert 'two members have the name' in refusal(unpack, tmp_path)


def test_equal_names(folder, unpack, tmp_path):
    with tarfile.open(folder / 'a.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('a.png'))
        archive.addfile(tarfile.TarInfo('./a.png'))
    assert 'two members have the name' in refusal(unpack, tmp_path)


def test_folders_may_be_listed_twice(folder, unpack):
    zipped(folder / 'a.zip', {'set/': b'', 'Set/': b'', 'set/1.png': b'one'})
    (made,) = unpack()
    assert contents(made) == {'set/1.png': b'one'}


@pytest.mark.parametrize(('make', 'file'), [(zipped, 'a.zip'), (tarred, 'a.tar')])
def test_too_many_members(folder, unpack, tmp_path, make, file, monkeypatch):
    monkeypatch.setattr(archives, 'MAX_MEMBERS', 3)
    make(folder / file, {f'.{n}': b'' for n in range(4)})
    assert 'more than 3 members' in refusal(unpack, tmp_path)


@pytest.mark.parametrize(('make', 'file', 'more'), [(zipped, 'a.zip', ()), (tarred, 'a.tar.xz', ('w:xz',))])
@pytest.mark.parametrize('name', ['a.png', '.hidden'])
def test_bombs_stop_at_their_headers(folder, unpack, tmp_path, make, file, more, name, monkeypatch):
    monkeypatch.setattr(archives, 'ALWAYS_ALLOWED', 1 << 20)
    monkeypatch.setattr(archives._Writer, 'write', lambda *_: pytest.fail('a byte was written'))
    make(folder / file, {name: bytes(8 << 20)}, *more)
    assert 'an archive of its size may become' in refusal(unpack, tmp_path)


def test_the_disk_sets_a_limit(folder, unpack, tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda _: usage._replace(free=archives.RESERVE + 1000))
    zipped(folder / 'a.zip', {'a.png': bytes(1001)})
    assert 'the disk has room for' in refusal(unpack, tmp_path)
    zipped(folder / 'a.zip', {'a.png': bytes(1000)})
    assert len(unpack()) == 1


def lie_about_size(path, size):
    data = bytearray(path.read_bytes())
    for mark, offset in ((b'PK\x03\x04', 22), (b'PK\x01\x02', 24)):
        struct.pack_into('<I', data, data.index(mark) + offset, size)
    path.write_bytes(data)


def test_a_zip_that_lies_about_a_size(folder, unpack, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, 'ALWAYS_ALLOWED', 1 << 20)
    lie_about_size(zipped(folder / 'a.zip', {'a.png': bytes(64 << 20)}), 1000)
    assert 'damaged' in refusal(unpack, tmp_path)


def test_what_is_written_is_counted_too(folder, unpack, tmp_path, monkeypatch):
    """As if the reader believed a lying header: bytes go on coming, and the writer stops."""
    monkeypatch.setattr(archives, 'ALWAYS_ALLOWED', 1 << 20)
    monkeypatch.setattr(archives, 'MAX_RATIO', 0)
    place = archives._Writer.place
    monkeypatch.setattr(archives._Writer, 'place', lambda self, member, size, *rest: place(self, member, 1, *rest))
    zipped(folder / 'a.zip', {'a.png': bytes(64 << 20)})
    assert 'an archive of its size may become' in refusal(unpack, tmp_path)


def raw_header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize('kind', [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_huge_headers_of_a_tar_are_not_read(folder, unpack, tmp_path, kind):
    (folder / 'a.tar').write_bytes(raw_header('fine.png', 0) + raw_header('x', 1 << 40, kind) + bytes(1 << 16))
    assert 'headers are too large' in refusal(unpack, tmp_path)


def test_many_headers_of_a_tar_before_one_member(folder, unpack, tmp_path):
    pax = raw_header('x', 512, tarfile.XHDTYPE) + b'11 path=ab\n'.ljust(512, b'\0')
    (folder / 'a.tar').write_bytes(pax * 5000 + raw_header('a.png', 0) + bytes(1024))
    assert 'damaged' in refusal(unpack, tmp_path)


def test_negative_sizes(folder, unpack, tmp_path):
    (folder / 'a.tar').write_bytes(raw_header('fine.png', 0) + raw_header('a.png', -1024) + bytes(1024))
    message = refusal(unpack, tmp_path)
    assert 'negative size' in message or 'damaged' in message


@pytest.mark.parametrize('data', [b'', b'<html>please log in</html>', b'PK\x05\x06', os.urandom(2000)])
@pytest.mark.parametrize('file', ['a.zip', 'a.tar', 'a.tar.gz'])
def test_files_that_are_no_archives(folder, unpack, tmp_path, data, file):
    (folder / file).write_bytes(data)
    message = refusal(unpack, tmp_path)
    assert message.startswith(f'{folder / file}: damaged')


SOUND = [(zipped, 'a.zip', ()), (tarred, 'a.tar', ()), (tarred, 'a.tar.gz', ('w:gz',)), (tarred, 'a.tar.xz', ('w:xz',))]
NOISE = {'1.png': os.urandom(3000), '2.png': os.urandom(2048), '3.png': os.urandom(10_000)}


@pytest.mark.parametrize(('make', 'file', 'more'), SOUND)
def test_broken_off_downloads(folder, unpack, tmp_path, make, file, more):
    path = make(folder / file, NOISE, *more)
    data = path.read_bytes()
    end = tarfile.BLOCKSIZE * (3 + 6 + 4 + 20) if file == 'a.tar' else len(data)  # before the zeros
    for size in [end - 1, end - 512, end // 2, *range(511, end, 1024)]:
        path.write_bytes(data[:size])
        assert f'{path}: damaged' in refusal(unpack, tmp_path)


@pytest.mark.parametrize(('make', 'file', 'more'), [*SOUND[:1], *SOUND[2:]])
def test_flipped_bits_are_seen_by_the_checksums(folder, unpack, tmp_path, make, file, more):
    path = make(folder / file, NOISE, *more)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert f'{path}: damaged' in refusal(unpack, tmp_path)


def test_a_damaged_header_inside_a_tar(folder, unpack, tmp_path):
    path = tarred(folder / 'a.tar', NOISE)
    data = bytearray(path.read_bytes())
    data[512 + 3072 + 5] ^= 4  # in the second header; tarfile takes that for the end
    path.write_bytes(data)
    assert f'{path}: damaged' in refusal(unpack, tmp_path)


def test_a_bad_archive_inside_another(folder, unpack, tmp_path):
    zipped(folder / 'a.zip', {'set/aligned.zip': b'PK', **FACES})
    assert f'{folder / "a.zip"}: set/aligned.zip: damaged' in refusal(unpack, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_cannot_be_written(folder, tmp_path):
    zipped(folder / 'a.zip', FACES)
    (tmp_path / 'unpacked').mkdir(mode=0o500)
    with pytest.raises(UserError, match='cannot be'):
        archives.unpack(folder, tmp_path / 'unpacked')


def test_a_full_disk_is_one_line(folder, unpack, tmp_path, monkeypatch):
    zipped(folder / 'a.zip', {'a' * 300: b''})  # no file system takes this name, and the message has the same way
    assert 'cannot be extracted into' in refusal(unpack, tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        archives.unpack(tmp_path / 'nowhere', tmp_path / 'unpacked')


# Kills and several processes.


def _slowly(folder, into):
    read = zipfile.ZipExtFile.read
    zipfile.ZipExtFile.read = lambda self, size: time.sleep(0.02) or read(self, size)
    archives.unpack(folder, into)


def _start(folder, into):
    process = multiprocessing.get_context('spawn').Process(target=_slowly, args=(folder, into))
    process.start()
    return process


def _wait_for_a_file(into):
    for _ in range(3000):
        if into.is_dir() and any(path.suffix == '.png' for path in into.rglob('*')):
            return
        time.sleep(0.01)
    pytest.fail('nothing was written')


def test_a_kill_leaves_nothing_half(folder, unpack, tmp_path):
    members = {f'{n}.png': b'x' for n in range(200)}
    zipped(folder / 'a.zip', members)
    process = _start(folder, tmp_path / 'unpacked')
    _wait_for_a_file(tmp_path / 'unpacked')
    process.kill()
    process.join()
    assert all(name.startswith('.') for name in os.listdir(tmp_path / 'unpacked'))
    assert list(records.walk(tmp_path / 'unpacked')) == []
    (made,) = unpack()
    assert contents(made) == members
    assert sorted(os.listdir(tmp_path / 'unpacked')) == ['.lock', made.name]


def test_a_second_process_waits_and_takes_what_the_first_made(folder, unpack, tmp_path, caplog):
    members = {f'{n}.png': b'x' for n in range(100)}
    zipped(folder / 'a.zip', members)
    process = _start(folder, tmp_path / 'unpacked')
    _wait_for_a_file(tmp_path / 'unpacked')
    (made,) = unpack(progress=lambda *_: pytest.fail('extracted twice'))
    assert f'another process unpacks the archives of {folder}; waiting for it' in caplog.text
    process.join()
    assert contents(made) == members


def test_random_damage_never_escapes(folder, unpack, tmp_path):
    """Whatever byte is changed, the answer is a folder or one line."""
    draw = random.Random(0)
    for make, file, more in SOUND:
        path = make(folder / file, FACES, *more)
        data = path.read_bytes()
        for _ in range(150):
            changed = bytearray(data)
            for _ in range(draw.randint(1, 4)):
                changed[draw.randrange(len(data))] = draw.randrange(256)
            path.write_bytes(changed)
            with contextlib.suppress(UserError):
                unpack()
        path.unlink()
    assert sorted(os.listdir(tmp_path)) == ['downloads', 'unpacked']
