"""Hostile weight files: no code of theirs runs, they lead nowhere, and they cost no more than their size allows."""

import struct
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from fn2en_jax.weights import files
from fn2en_jax.weights.binary import Bytes
from tests import weight_files as writers
from tests.test_weights_import import CANONICAL, MADE, RGB, fails


class Attack:
    def __reduce__(self):
        import os

        return os.system, ('touch attacked',)


@pytest.mark.parametrize('zipped', [True, False])
def test_no_code_of_a_pickle_is_run(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'conv1_1.weight': Attack()}, 'a.pth', _use_new_zipfile_serialization=zipped)
    fails('a.pth', r'asks for the code posix.system')
    torch.save(torch.nn.Linear(2, 2), 'b.pth', _use_new_zipfile_serialization=zipped)
    fails('b.pth', r'asks for the code .*Linear.*state_dict')
    assert not (tmp_path / 'attacked').exists()


def test_hdf5_leads_nowhere_else(tmp_path):
    secret = tmp_path / 'secret.h5'
    writers.keras(secret, MADE)
    kernel = '/conv1_1/conv1_1/kernel:0'

    def relinked(name, link):
        path = tmp_path / name
        writers.keras(path, MADE)
        with h5py.File(path, 'a') as file:
            del file[kernel]
            file[kernel] = link(file)
        return path

    fails(relinked('external', lambda file: h5py.ExternalLink(str(secret), kernel)), 'never followed')
    fails(relinked('soft', lambda file: h5py.SoftLink('/conv1_2/conv1_2/kernel:0')), 'never followed')
    path = tmp_path / 'virtual'
    writers.keras(path, MADE)
    layout = h5py.VirtualLayout((3, 3, 3, 4), 'f4')
    layout[:] = h5py.VirtualSource(str(secret), kernel, (3, 3, 3, 4))
    with h5py.File(path, 'a') as file:
        del file[kernel]
        file.create_virtual_dataset(kernel, layout)
    fails(path, 'from other files, which are never opened')
    path = tmp_path / 'raw'
    writers.keras(path, MADE)
    with h5py.File(path, 'a') as file:
        del file[kernel]
        file.create_dataset(kernel, (3, 3, 3, 4), 'f4', external=[(str(secret), 0, 432)])
    fails(path, 'from other files, which are never opened')


def test_hdf5_of_other_forms_is_refused_or_read(tmp_path):
    writers.keras(tmp_path / 'a', MADE)
    for name, options in (('latest', {'libver': 'latest'}), ('tracked', {'track_order': True})):
        with h5py.File(tmp_path / 'a') as old, h5py.File(tmp_path / name, 'w', **options) as new:
            for key, value in old.attrs.items():
                new.attrs[key] = value
            for key in old:
                old.copy(key, new)
        fails(tmp_path / name, 'newer form of HDF5')
    with h5py.File(tmp_path / 'a', 'a') as file:
        del file['/conv1_1/conv1_1/bias:0']
        file['/conv1_1/conv1_1/bias:0'] = MADE['conv1_1'][1].astype('>f8')
        names = [name.decode() for name in file.attrs['layer_names']]
        del file.attrs['layer_names']
        file.attrs['layer_names0'] = names[:9]  # texts of any length, in two parts
        file.attrs.create('layer_names1', names[9:], dtype=h5py.string_dtype())
    found = files.load(str(tmp_path / 'a'))['params']
    for layer, parts in CANONICAL.items():
        for part, array in parts.items():
            np.testing.assert_array_equal(found[layer][part], array)
    with h5py.File(tmp_path / 'a', 'a') as file:
        del file['/conv1_1/conv1_1/bias:0']
        file['/conv1_1/conv1_1/bias:0'] = np.arange(4)
    fails(tmp_path / 'a', 'does not hold real numbers')


def test_values_inside_a_description_are_read_and_packed_ones_are_refused_with_a_way_out(tmp_path):
    path, bias = tmp_path / 'a', MADE['conv1_1'][1]
    writers.keras(path, MADE)
    with h5py.File(path, 'a') as file:
        del file['/conv1_1/conv1_1/bias:0']
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(bias.shape)
        made = h5py.h5d.create(file['/conv1_1/conv1_1'].id, b'bias:0', h5py.h5t.IEEE_F32LE, space, compact)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, bias.copy())
    np.testing.assert_array_equal(files.load(str(path))['params']['conv1_1']['bias'], bias)
    with h5py.File(path, 'a') as file:
        kernel = file['/fc6/fc6/kernel:0'][()]
        del file['/fc6/fc6/kernel:0']
        file.create_dataset('/fc6/fc6/kernel:0', data=kernel, compression='gzip')
    fails(path, r'fc6/kernel:0 is stored in chunks .*; save it again with h5py .* without chunks= and compression=')


def test_shape_bombs_are_not_allocated(tmp_path):
    path = tmp_path / 'a'
    writers.keras(path, MADE)
    with h5py.File(path, 'a') as file:
        del file['/fc6/fc6/kernel:0']
        file.create_dataset('/fc6/fc6/kernel:0', (1 << 20, 1 << 20), 'f4', chunks=(1024, 1024), compression='gzip')
    fails(path, 'fc6/kernel:0 is stored in chunks')
    with h5py.File(path, 'a') as file:
        del file['/fc6/fc6/kernel:0']
        file.create_dataset('/fc6/fc6/kernel:0', (1 << 20, 1 << 20), 'f4')  # space that was never filled
    fails(path, 'fc6/kernel:0 has no values')
    arrays = writers.state(MADE, 'dag')
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    tensors['fc8.weight'] = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save(tensors, tmp_path / 'b')
    fails(tmp_path / 'b', 'reaches beyond its values', RGB)


def element(kind, content):
    return np.array([kind, len(content)], '<u4').tobytes() + content + b'\0' * (-len(content) % 8)


def matrix(kind, shape, name, content, length=None):
    """A matrix of a MATLAB file, written by hand; `length` bytes of it where the rest follows."""
    flags, sizes = element(6, np.array([kind, 0], '<u4').tobytes()), element(5, np.array(shape, '<i4').tobytes())
    inside = flags + sizes + element(1, name) + content
    return np.array([14, len(inside) + (length or 0)], '<u4').tobytes() + inside


def matlab_file(path, pieces, packed=True):
    engine = zlib.compressobj(9)
    body = b''.join(pieces)
    if packed:
        body = b''.join(map(engine.compress, pieces)) + engine.flush()
        body = np.array([15, len(body)], '<u4').tobytes() + body
    path.write_bytes(b'MATLAB 5.0 MAT-file'.ljust(124) + b'\x00\x01IM' + body)


def test_a_compressed_bomb_is_not_inflated(tmp_path):
    """Kilobytes that promise a gigabyte: refused by the numbers before it is made, or as soon as it shows."""
    path = tmp_path / 'a'
    values = matrix(7, (1 << 14, 1 << 14), b'', np.array([7, 1 << 30], '<u4').tobytes(), 1 << 30)
    matlab_file(path, [matrix(1, (1, 1), b'layers', values, 1 << 30), bytes(1 << 20)])
    fails(path, 'more than 200 million values')
    zeros = [bytes(1 << 20)] * 100
    matlab_file(path, [matrix(7, (1, 1), b'lasers', b'', (1 << 32) - 100), *zeros])
    begin = time.process_time()
    fails(path, r'inflates to more than \d\d MB')
    # Numbers in place of layers are not kept, and elements to be stepped over are not inflated without end.
    matlab_file(path, [matrix(6, (1, 10), b'layers', element(9, bytes(80)))])
    fails(path, r'holds no MatConvNet net \(no layers\)')
    skipped = np.array([14, 60_000], '<u4').tobytes() + element(6, bytes(8)) + bytes(60_000 - 16)
    matlab_file(path, [matrix(1, (1, 1500), b'layers', b'', 1500 * len(skipped)), *[skipped] * 1500])
    fails(path, r'inflates to more than \d\d MB')
    assert time.process_time() - begin < 5


def test_items_and_texts_of_a_matlab_file_are_bounded(tmp_path):
    one = matrix(6, (1, 1), b'', element(9, bytes(8)))
    matlab_file(tmp_path / 'a', [matrix(1, (1, 20_000), b'layers', one * 20_000)], packed=False)
    fails(tmp_path / 'a', 'more than 20000 values')
    text = matrix(4, (1, 4096), b'', element(16, b'A' * 4096))
    matlab_file(tmp_path / 'a', [matrix(1, (1, 300), b'layers', text * 300)])
    fails(tmp_path / 'a', 'more than 1 MB of text')


def test_isolated_values_of_a_caffe_blob_do_not_read_the_file_each(tmp_path):
    """Each was followed by a look at the five megabytes behind it: ten thousand took a minute."""
    count = 10_000
    pairs = (writers.varint(5 << 3 | 5) + bytes(4) + writers.integer(99, 1)) * count
    blob = pairs + writers.field(99, bytes(6 << 20)) + writers.field(7, writers.field(1, writers.varint(count)))
    path = tmp_path / 'a'
    path.write_bytes(
        writers.field(1, b'VGG') + writers.field(100, writers.field(1, b'conv1_1') + writers.field(7, blob))
    )
    begin = time.process_time()
    fails(path, r'missing: conv1_1/bias, .*of another shape: conv1_1 blob 0 \(10000,\)')
    assert time.process_time() - begin < 5


def test_nesting_is_bounded(tmp_path):
    deep = writers.T7(False)
    value = None
    for _ in range(100):
        value = {b'x': value}
    deep.value(value)
    (tmp_path / 'a').write_bytes(deep.out)
    fails(tmp_path / 'a', 'nests deeper than 40')
    content = {'a': 1.0}
    for _ in range(40):
        content = {'layers': content}
    scipy.io.savemat(tmp_path / 'b', content, appendmat=False)
    fails(tmp_path / 'b', 'nests deeper than 20')
    # An nn.Sequential that contains itself: found without end if followed.
    loop = writers.T7(False)
    loop.begin(b'nn.Sequential')
    loop.int(3, 2, 1, 2, 7)
    loop.out += b'modules'
    loop.int(3, 3, 1, 1)
    loop.out += np.float64(1).tobytes()
    loop.int(4, 1)
    (tmp_path / 'c').write_bytes(loop.out)
    fails(tmp_path / 'c', 'more than 1000 modules')


def test_safetensors_headers_are_checked(tmp_path):
    def write(header, data=b'', length=None):
        text = header.encode()
        (tmp_path / 'a').write_bytes((len(text) if length is None else length).to_bytes(8, 'little') + text + data)

    entry = '{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    for header, data, match in (
        ('{"a":' + entry % (0, 4) + ',"b":' + entry % (0, 4) + '}', bytes(4), 'does not begin where'),
        ('{"a":' + entry % (0, 4) + ',"b":' + entry % (8, 12) + '}', bytes(12), 'does not begin where'),
        ('{"a":' + entry % (0, 4) + ',"a":' + entry % (4, 8) + '}', bytes(8), 'not JSON'),
        ('{"a":' + entry % (0, 8) + '}', bytes(8), 'another size'),
        ('{"a":' + entry % (0, 4) + '}', bytes(5), 'bytes are needed'),
        ('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4), 'no sound shape'),
        ('{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}', bytes(1), 'is of type BOOL'),
        ('{"__metadata__":{"a":1}}', b'', 'not texts'),
        ('{"a":' + '[' * 100_000, b'', 'not JSON'),
    ):
        write(header, data)
        fails(tmp_path / 'a', match)
    write('{}', length=1 << 40)
    fails(tmp_path / 'a', 'a header of 1099511627776 bytes')


def test_long_safetensors_headers_are_refused(tmp_path):
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    for count, match in ((1001, 'it holds 1001 tensors'), (20_000, r'a header of \d+ bytes')):
        text = ('{' + ','.join(f'"a{index}.weight":{entry}' for index in range(count)) + '}').encode()
        (tmp_path / 'a').write_bytes(len(text).to_bytes(8, 'little') + text)
        fails(tmp_path / 'a', match)


def test_a_list_given_to_many_calls_is_paid_for_each_time(tmp_path):
    """0.7 MB that made 12 million entries of dicts."""
    pairs = b''.join(b'X' + struct.pack('<I', 5) + b'%05d' % index + b'N\x86' for index in range(60_000))
    calls = b'h\x02h\x01R' * 200
    pickle = b'\x80\x02(]q\x00(' + pairs + b'e\x85q\x01ccollections\nOrderedDict\nq\x02' + calls + b't.'
    with zipfile.ZipFile(tmp_path / 'a', 'w') as archive:
        archive.writestr('archive/data.pkl', pickle)
    fails(tmp_path / 'a', 'takes more than 1000000 steps')


def test_a_long_directory_is_refused_however_its_end_is_written(tmp_path):
    """The disk numbers spell the mark of the end record again: whoever searches backwards takes these."""
    entry = struct.pack('<4s6H3L5H2L', b'PK\1\2', 20, 20, *[0] * 7, 8, *[0] * 6)
    directory = b''.join(entry + b'%08d' % index for index in range(30_000))
    end = struct.pack('<4s4H2LH', b'PK\5\6', 0x4B50, 0x0605, 30_000, 30_000, len(directory), 30, 0)
    (tmp_path / 'a').write_bytes(b'PK\3\4' + bytes(26) + directory + end)
    fails(tmp_path / 'a', 'larger, or has more members')


def flat_state(made):
    """A state dict whose tensors are pieces of one long vector, and that vector."""
    arrays = writers.state(made, 'prlz77')
    values = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays.values()]))
    pieces = torch.split(values, [array.size for array in arrays.values()])
    return {key: piece.reshape(arrays[key].shape) for key, piece in zip(arrays, pieces, strict=True)}, values


@pytest.mark.parametrize('zipped', [True, False])
def test_pieces_of_one_vector_are_read_once_and_by_themselves(zipped, tmp_path, monkeypatch):
    state, values = flat_state(MADE)
    torch.save(state, tmp_path / 'a', _use_new_zipfile_serialization=zipped)
    read = []
    for name in ('read', 'array'):
        monkeypatch.setattr(Bytes, name, counted(getattr(Bytes, name), read))
    net = files.read(str(tmp_path / 'a'))
    size = values.numel() * 4
    assert sum(read) < 2 * size + (1 << 16)
    for layer, parts in CANONICAL.items():
        for part, array in parts.items():
            np.testing.assert_array_equal(net.variables['params'][layer][part], array)
    assert all(parts['bias'].base is None for parts in net.variables['params'].values())


def counted(method, read):
    def wrapped(self, *arguments):
        found = method(self, *arguments)
        read.append(len(found) if isinstance(found, bytes) else found.nbytes)
        return found

    return wrapped


def test_values_nobody_reads_are_not_made_room_for(tmp_path):
    """A file of 1.2 GB, all but its beginning a hole."""
    made = writers.net(side=(1, 1))
    state, values = flat_state(made)
    torch.save(state, tmp_path / 'a', _use_new_zipfile_serialization=False)
    data, count, claimed = (tmp_path / 'a').read_bytes(), values.numel(), 300_000_000
    head, body = data[: -8 - 4 * count], data[-4 * count :]
    assert count < 1 << 16
    head = head.replace(b'M' + struct.pack('<H', count), b'J' + struct.pack('<i', claimed))
    with (tmp_path / 'a').open('wb') as file:
        file.write(head + struct.pack('<q', claimed) + body)
        file.truncate(len(head) + 8 + 4 * claimed)
    begin = time.monotonic()
    net = files.load(str(tmp_path / 'a'))
    assert time.monotonic() - begin < 2
    np.testing.assert_array_equal(net['params']['fc8']['bias'], made['fc8'][1])


def test_few_values_scattered_over_many_are_refused(tmp_path):
    tensors = {name: torch.from_numpy(array.copy()) for name, array in writers.state(MADE, 'prlz77').items()}
    tensors['fc8.bias'] = torch.zeros(10 * writers.CLASSES)[::10]
    torch.save(tensors, tmp_path / 'a')
    fails(tmp_path / 'a', r'scattered over many; save each after .contiguous')


@pytest.mark.parametrize('first', [True, False])
def test_a_wrong_checksum_is_found_wherever_the_damage_is(first, tmp_path):
    state, values = flat_state(MADE)
    torch.save(state, tmp_path / 'a')
    data = bytearray((tmp_path / 'a').read_bytes())
    at = bytes(data).find(values[:4].numpy().tobytes())
    data[at if first else at + 4 * values.numel() - 1] ^= 1
    (tmp_path / 'a').write_bytes(data)
    fails(tmp_path / 'a', 'the checksum of 0 is wrong')


def test_own_views_of_shared_values_are_read_as_torch_reads_them(tmp_path):
    arrays = writers.state(MADE, 'dag')
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    tensors['fc7.weight'] = tensors['fc7.weight'].T.contiguous().T
    both = torch.cat([tensors['fc6.bias'], tensors['fc7.bias']])
    tensors['fc6.bias'], tensors['fc7.bias'] = both[: writers.FEATURES], both[writers.FEATURES :]
    tensors['fc8.bias'] = torch.nn.Parameter(tensors['fc8.bias'])
    for name, zipped in (('zip', True), ('stream', False)):
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
        found = files.load(str(tmp_path / name), RGB)['params']
        for layer in ('fc6', 'fc7', 'fc8'):
            np.testing.assert_array_equal(found[layer]['kernel'], CANONICAL[layer]['kernel'])
            np.testing.assert_array_equal(found[layer]['bias'], CANONICAL[layer]['bias'])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_become_float32(dtype, tmp_path):
    tensors = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in writers.state(MADE, 'dag').items()}
    for zipped in (True, False):
        torch.save(tensors, tmp_path / 'a', _use_new_zipfile_serialization=zipped)
        found = files.load(str(tmp_path / 'a'), RGB)['params']['conv2_1']['kernel']
        expected = tensors['conv2_1.weight'].float().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
