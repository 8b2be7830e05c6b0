"""Opening a face net's weight file, whatever published form it has: told by content, read as data, checked.

Each form has a module: `own` (safetensors), `matconvnet`, `caffe`, `torch7`, `pytorch`, `keras`; `canonical` is what
they all end in.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from etils import epath

from fn2en_jax import workdir
from fn2en_jax.errors import UserError
from fn2en_jax.types import PyTree
from fn2en_jax.weights import caffe, hdf5, keras, matconvnet, own, pytorch, torch7
from fn2en_jax.weights.binary import Bytes
from fn2en_jax.weights.canonical import Net, Wish

_PIECE = 1 << 24  # bytes copied at a time
# What is often found in place of a weight file, and what to do about it.
_STRANGERS = {
    b'\x1f\x8b': 'is a gzip archive; unpack it and name the weight file inside',
    b'BZh': 'is a bzip2 archive; unpack it and name the weight file inside',
    b'version https://git-lfs': 'is a Git LFS pointer, not the file itself; fetch it with git lfs pull',
    b'<': 'is a web page, not a weight file; the download went wrong',
    b'4\n': 'is a Torch7 file of the text form, which is not read; save it again in the binary form',
    b'\x80\x02': 'is a pickle, but not what torch.save writes; a pickle can run code, so nothing of it is read',
    b'\x80\x03': 'is a pickle, but not what torch.save writes; a pickle can run code, so nothing of it is read',
    b'\x80\x04': 'is a pickle, but not what torch.save writes; a pickle can run code, so nothing of it is read',
    b'\x93NUMPY': 'is a NumPy array, not a weight file',
}


def read(path: str, wish: Wish = Wish()) -> Net:  # noqa: B008 (a frozen value)
    """Reads a weight file of any known form; no code from the file is run, no path in it is followed.

    Args:
        path: local, or gs://.
        wish: what the user says about it.

    Returns:
        The net in canonical form. Its values may be non-finite: see `unsound`.

    Raises:
        UserError: when the file is missing, damaged, of no known form, ambiguous, or no VGG-16.
    """
    place = local(path)
    try:
        with Bytes(place) as file:
            return _by_content(file, place, wish)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error


def load(path: str, wish: Wish = Wish()) -> dict[str, PyTree]:  # noqa: B008 (a frozen value)
    """The variables of the face net in a file, {'params': ..., 'batch_stats': ...}.

    Raises:
        UserError: as `sound`.
    """
    return sound(path, wish).variables


def sound(path: str, wish: Wish = Wish()) -> Net:  # noqa: B008 (a frozen value)
    """As `read`, for a net to be used.

    Raises:
        UserError: also when a value is not finite.
    """
    net = read(path, wish)
    for name, array in net.tensors().items():
        if not np.isfinite(array).all():
            raise UserError(
                f'{path}: {name} holds values that are not finite; the file is damaged or not a trained net'
            )
    return net


def unsound(net: Net) -> list[str]:
    """A line for every tensor with non-finite values, or with nothing but zeros."""
    lines = []
    for name, array in net.tensors().items():
        finite = int(np.count_nonzero(np.isfinite(array)))
        if finite < array.size:
            lines.append(f'{name}: {array.size - finite} of {array.size} values are not finite')
        elif not array.any():
            lines.append(f'{name}: all values are zero')
    return lines


def sha256(path: str) -> str:
    """The SHA-256 of a file, local or gs://, in hexadecimal. Raises UserError as `local`."""
    with local(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def local(path: str) -> Path:
    """Where the file is on this machine; one at gs:// is copied into the user's cache first.

    Raises:
        UserError: when there is no such file, or no way to reach it.
    """
    if path.startswith('gs://'):
        return _fetched(path)
    if '://' in path:
        raise UserError(f'{path}: only local files and gs:// are read')
    if not Path(path).is_file():
        raise UserError(f'there is no file {path} to read weights from')
    return Path(path)


def _fetched(path: str) -> Path:
    # Without TensorFlow, etils reaches the cloud through fsspec, which raises whatever its backend does.
    try:
        source = epath.Path(path)
        state = source.stat()
    except ImportError as error:
        raise UserError(f'{path}: gs:// needs the package gcsfs; install it, or copy the file here') from error
    except Exception as error:
        raise UserError(f'{path} cannot be reached ({type(error).__name__}); check the name and your login') from error
    mark = hashlib.sha256(f'{path} {state.length} {state.mtime}'.encode()).hexdigest()[:16]
    folder = workdir.cache('weights')
    place = folder / f'{mark}-{source.name}'
    if not place.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f'{place.name}.{os.getpid()}.tmp')
        try:
            with source.open('rb') as remote, temporary.open('wb') as copy:
                while piece := remote.read(_PIECE):
                    copy.write(piece)
            os.replace(temporary, place)
        except Exception as error:
            raise UserError(f'{path} cannot be copied to {folder} ({type(error).__name__}: {error})') from error
        finally:
            temporary.unlink(missing_ok=True)
    return place


def _by_content(file: Bytes, place: Path, wish: Wish) -> Net:
    head = file.read(0, min(file.size, 1024))
    if head.startswith(b'MATLAB 5.0 MAT-file'):
        return matconvnet.read(file, wish)
    if head.startswith(b'MATLAB 7.3') or head[512:520] == hdf5.SIGNATURE:
        raise UserError('the MATLAB file is of version 7.3; save it again in MATLAB with -v7')
    if head.startswith(hdf5.SIGNATURE):
        return keras.read(file, place.name, wish)
    if head.startswith(b'PK\x03\x04'):
        return keras.read_archive(file, wish) if keras.is_archive(head) else pytorch.read_zip(file, wish)
    if head.startswith(pytorch.MAGIC):
        return pytorch.read_stream(file, wish)
    if torch7.looks_like(head):
        return torch7.read(file, wish)
    if head[6:9] == b'\0\0{':  # behind a length that can be one: a Caffe model may have the same letter there
        return own.read(file, wish)
    for mark, what in _STRANGERS.items():
        if head.startswith(mark):
            raise UserError(f'this {what}')
    if head[257:262] == b'ustar':
        raise UserError('this is a tar archive; unpack it and name the weight file inside')
    if caffe.looks_like(head):
        return caffe.read(file, wish)
    raise UserError(
        'this is no weight file of a known form (safetensors, MatConvNet .mat, Caffe .caffemodel, Torch7 .t7, '
        'PyTorch .pth, Keras .h5 and .keras)'
    )
