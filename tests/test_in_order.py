"""Sets of any size are stored as they come: what TFDS would sort with TensorFlow's help beyond a gigabyte."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, shuffle, utils
from tensorflow_datasets.proto import tf_example_pb2

from fn2en_jax.data import store
from fn2en_jax.data.builders import in_order, published_faces, schema, synthetic_faces, table_faces
from fn2en_jax.errors import UserError


def stored(folder):
    counts = {'persons': 2, 'per_person': 7, 'test_persons': 1, 'test_per_person': 7, 'size': 32, 'channels': 1}
    return store.prepare(lambda data_dir: synthetic_faces.builder('expressions', data_dir=data_dir, **counts), folder)


def test_many_shards_hold_what_one_holds(tmp_path, monkeypatch):
    one = stored(tmp_path / 'one')
    monkeypatch.setattr(in_order, 'SHARD_BYTES', 3000)
    monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 3000)  # beyond which TFDS itself needs TensorFlow
    many = stored(tmp_path / 'many')
    lengths = many.info.splits['examples'].shard_lengths
    assert one.info.splits['examples'].shard_lengths == [21]
    assert (len(lengths) > 3, sum(lengths), min(lengths) > 0) == (True, 21, True)
    assert many.info.splits['examples'].num_bytes == one.info.splits['examples'].num_bytes
    shards = sorted(path.name for path in many.data_path.glob('*array_record*'))
    assert shards == [f'synthetic_faces-examples.array_record-{k:05}-of-{len(lengths):05}' for k in range(len(lengths))]
    assert not list(many.data_path.glob('*unfinished'))
    ours, theirs = (store.load(builder, size=32, channels=1) for builder in (many, one))
    assert (ours.files, ours.splits) == (theirs.files, theirs.splits)
    np.testing.assert_array_equal(ours.images, theirs.images)
    np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize(
    ('sizes', 'lengths'), [([], []), ([9], [1]), ([4, 4, 4], [3]), ([10, 1], [1, 1]), ([4, 8, 1, 1, 30, 2], [2, 3, 1])]
)
def test_shards_end_once_they_are_full(monkeypatch, sizes, lengths):
    monkeypatch.setattr(in_order, 'SHARD_BYTES', 10)
    shards = in_order._Shards(iter([b'x' * size for size in sizes]))
    found = []
    while shards.left:
        found.append(list(shards.next()))
    assert [[len(data) for _, data in shard] for shard in found] == [
        sizes[sum(lengths[:k]) : sum(lengths[: k + 1])] for k in range(len(lengths))
    ]
    assert all([place for place, _ in shard] == list(range(len(shard))) for shard in found)
    assert (shards.lengths, shards.num_bytes) == (lengths, sum(sizes))


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'subject': 'Zoë', 'split': 'train', 'sequence': 'S1/2', 'folds': 'tve', 'face': 'eyes'},
        {'fold': np.int64(3), 'frame': 2**40, 'box': (0.1, -2.5, 3e4, 1 / 3), 'eyes': np.arange(4.0)},
    ],
)
def test_examples_are_serialised_as_tfds_does_it(fields):
    example = schema.example(b'\x89PNG\x00', label='anger', file='a.png', **fields)
    features = schema.features()
    theirs = example_serializer.ExampleSerializer(features.get_serialized_info()).serialize_example(
        features.encode_example(example)
    )
    ours = schema.serialised(example)
    assert len(ours) == len(theirs)  # which are in the order of a hash that differs from process to process
    assert tf_example_pb2.Example.FromString(ours) == tf_example_pb2.Example.FromString(theirs)
    assert ours == schema.serialised(dict(reversed(example.items())))


class Empty(in_order.InOrderBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=schema.features(), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {schema.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        yield from ()


def test_a_set_of_nothing_is_not_stored(tmp_path):
    with pytest.raises(UserError, match=r'^empty/1\.0\.0: there is nothing to store'):
        store.prepare(Empty, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('told', [False, True])
def test_one_job_has_one_bar(tmp_path, monkeypatch, told):
    bars = []
    monkeypatch.setattr(utils, 'tqdm', lambda examples, **words: bars.append(words['desc']) or examples)
    monkeypatch.setattr(in_order.InOrderBuilder, 'told', told)
    stored(tmp_path)
    assert bars.count('storing') == (not told)


def test_what_is_prepared_tells_its_progress_itself(tmp_path):
    published = published_faces.PublishedFaces(config=published_faces.PublishedConfig(name='a'), data_dir=tmp_path)
    assert published.told
    for faces, told in ((None, False), ([], True)):
        config = table_faces.TableConfig(name='a', faces=faces)
        assert table_faces.TableFaces(config=config, data_dir=tmp_path).told == told


def test_a_failure_in_the_middle_leaves_no_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(in_order, 'SHARD_BYTES', 3000)
    draw = synthetic_faces.draw
    drawn = []

    def fail(task):
        drawn.append(task)
        if len(drawn) == 15:
            raise UserError('no more')
        return draw(task)

    monkeypatch.setattr(synthetic_faces, 'draw', fail)
    with pytest.raises(UserError, match='no more'):
        stored(tmp_path)
    left = [path.name for path in tmp_path.rglob('*')]
    assert not [name for name in left if 'array_record' in name or 'unfinished' in name or 'incomplete' in name]
