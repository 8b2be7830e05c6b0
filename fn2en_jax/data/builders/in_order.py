"""Storing examples in the order in which they come, of any number of bytes.

TFDS gathers a whole split before it writes it, to sort it; beyond a gigabyte it does so in files of TensorFlow's, which
is not there. Nothing is sorted here: examples are written as they come, into shards of a bounded size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils

from fn2en_jax.data.builders import schema
from fn2en_jax.errors import UserError

SHARD_BYTES = 1 << 28  # of a shard, about


class InOrderBuilder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder with one split, of which a generator yields keys (which are not used) and `schema` examples."""

    @property
    def told(self) -> bool:
        """Whether making the examples, which is most of the work, tells its progress: then storing them does not."""
        return False

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> Sequence[tfds.core.SplitInfo]:
        """What TFDS calls to write all splits, and describe them."""
        del download_config  # which only concerns other ways of writing
        ((split, examples),) = self._split_generators(dl_manager).items()
        template = self._get_filename_template(split_name=split)
        paths: list[Any] = []
        with contextlib.closing(examples):  # at once, also when the disk is full or the user has had enough
            shards = _Shards(self._serialised(examples))
            while shards.left:
                paths.append(template.data_dir / f'shard-{len(paths):05}.unfinished')
                self._example_writer().write(paths[-1], shards.next())
        if not paths:
            raise UserError(f'{self.info.full_name}: there is nothing to store')
        for path, final in zip(paths, template.sharded_filepaths(len(paths)), strict=True):
            path.rename(final)
        return [tfds.core.SplitInfo(split, shards.lengths, shards.num_bytes, filename_template=template)]

    def _serialised(self, examples: Iterable[tuple[Any, Any]]) -> Iterator[bytes]:
        bar = {'desc': 'storing', 'unit': ' examples', 'leave': False, 'mininterval': 1.0}
        for _, example in examples if self.told else utils.tqdm(examples, **bar):
            yield schema.serialised(example)


class _Shards:
    """Divides serialised examples into shards.

    Attributes:
        left: whether there is another shard.
        lengths: examples of each shard so far.
        num_bytes: of all examples so far.
    """

    def __init__(self, examples: Iterator[bytes]):
        self._examples = examples
        self._following = next(examples, None)
        self.lengths: list[int] = []
        self.num_bytes = 0

    @property
    def left(self) -> bool:
        return self._following is not None

    def next(self) -> Iterator[tuple[int, bytes]]:
        """The examples of the next shard, each with its place in it; at least one."""
        self.lengths.append(0)
        end = self.num_bytes + SHARD_BYTES
        while self._following is not None and (not self.lengths[-1] or self.num_bytes < end):
            yield self.lengths[-1], self._following
            self.lengths[-1] += 1
            self.num_bytes += len(self._following)
            self._following = next(self._examples, None)
