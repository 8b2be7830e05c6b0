"""Weights at gs:// are copied into the cache once, without TensorFlow."""

import sys
from typing import ClassVar

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from fn2en_jax.errors import UserError
from fn2en_jax.weights import files
from tests import weight_files as writers

MADE = writers.net(side=(1, 1))


class Bucket(MemoryFileSystem):
    """A cloud in memory; notes what is opened."""

    protocol = ('gs', 'gcs')
    opened: ClassVar[list[str]] = []

    def __init__(self, **options):
        options.pop('finalize_on_close', None)
        super().__init__(**options)

    def open(self, path, *arguments, **options):
        self.opened.append(path)
        return super().open(path, *arguments, **options)

    def info(self, path, **options):
        return {**super().info(path, **options), 'mtime': 1_600_000_000}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for scheme in ('gs', 'gcs'):
        monkeypatch.setitem(sys.modules['fsspec.registry']._registry, scheme, Bucket)
    Bucket.opened.clear()
    _forget()
    yield tmp_path
    _forget()


def _forget():
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_file_in_a_bucket_is_fetched_once(cloud):
    writers.caffe(cloud / 'a', MADE)
    with epath.Path('gs://bucket/face.caffemodel').open('wb') as file:
        file.write((cloud / 'a').read_bytes())
    Bucket.opened.clear()
    for _ in range(2):
        found = files.load('gs://bucket/face.caffemodel')['params']
        np.testing.assert_array_equal(found['conv2_1']['kernel'], MADE['conv2_1'][0])
    assert len(Bucket.opened) == 1
    assert files.sha256('gs://bucket/face.caffemodel') == files.sha256(str(cloud / 'a'))
    assert [path.suffix for path in (cloud / 'cache/fn2en_jax/weights').iterdir()] == ['.caffemodel']


def test_what_is_not_there_is_one_line(cloud):
    with pytest.raises(UserError, match=r'gs://bucket/none cannot be reached \(FileNotFoundError\)'):
        files.load('gs://bucket/none')


def test_without_gcsfs_the_message_names_it(tmp_path):
    with pytest.raises(UserError, match='gs:// needs the package gcsfs'):
        files.load('gs://bucket/face.caffemodel')
