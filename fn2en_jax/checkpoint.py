"""Checkpoints of one stage: asynchronous, bounded in number, verified when they are read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from fn2en_jax import trees, workdir
from fn2en_jax.errors import UserError
from fn2en_jax.types import PyTree

# Reading is what a reader wants: no warning is due.
logging.get_absl_logger().addFilter(lambda record: not str(record.msg).startswith('Given directory is read only'))


class Checkpoints:
    """The checkpoints of one stage in one folder, written by orbax.

    Every checkpoint carries a checksum of its arrays. Reading takes the newest one that is whole: a half-written or
    damaged one is skipped with a warning.
    """

    def __init__(self, folder: Path, *, keep: int = 2, read_only: bool = False):
        self.folder = Path(folder).absolute()
        # A reader leaves half-written folders alone: a run may be writing them.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            **({'save_interval_steps': 0} if read_only else {}),  # else it warns that it sets this itself
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: PyTree, meta: Mapping[str, Any]) -> None:
        """Starts writing `state`, a tree of host arrays that nobody changes any more; returns before it is on disk.

        Raises:
            UserError: when an earlier save ran out of space or may not write.
        """
        meta = {**meta, 'checksum': trees.checksum(state)}
        with workdir.disk_errors(self.folder):
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
            self._manager.save(step, args=args)

    def wait(self) -> None:
        """Blocks until every started save is on disk."""
        with workdir.disk_errors(self.folder):
            self._manager.wait_until_finished()

    def newest(self, template: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads the newest whole checkpoint.

        Args:
            template: a tree of arrays or `jax.ShapeDtypeStruct`s with the state's structure, shapes and dtypes.

        Returns:
            (step, state as host arrays, meta), or None when there is none at all.

        Raises:
            UserError: when there are checkpoints and none is whole, or the newest is of another net; nothing is
                deleted.
        """
        return self._first_whole(lambda step: (step, *self._read(step, template)))

    def facts(self) -> dict[str, Any] | None:
        """What the newest whole checkpoint says of itself, and its step; no arrays are read. None without any."""
        only_meta = ocp.args.Composite(meta=ocp.args.JsonRestore())
        read = self._manager.restore
        return self._first_whole(lambda step: {**read(step, args=only_meta)['meta'], 'step': step})

    def _first_whole(self, read: Callable[[int], Any]) -> Any:
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return read(step)
            except UserError:
                raise
            # Damage shows as whatever error the layer that met it raises, so no narrower class would do.
            except Exception as error:
                first = str(error).strip().split('\n')[0][:200] or type(error).__name__
                logging.warning('checkpoint %s is damaged, using the one before: %s', self.folder / str(step), first)
        if steps:
            raise UserError(
                f'none of the checkpoints in {self.folder} can be read; delete that folder to train this stage anew'
            )
        return None

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints newer than `step`: damaged ones in the way of new saves."""
        for other in self._manager.all_steps():
            if other > step:
                self._manager.delete(other)

    def close(self) -> None:
        """Waits for the last save and stops orbax's threads."""
        with workdir.disk_errors(self.folder):
            self._manager.close()

    def _read(self, step: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        # A sharding on every leaf lets a checkpoint from many devices open on one.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=here), template)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # of whatever class, as above
            if self._is_of_another_net(step, template):
                raise UserError(
                    f'the checkpoint {self.folder / str(step)} is whole, but of another net than config.json of its '
                    'workdir makes: was that changed?'
                ) from error
            raise
        state, meta = jax.tree.map(np.asarray, restored['state']), restored['meta']
        if trees.checksum(state) != meta['checksum']:
            raise ValueError('its arrays do not match their checksum')
        return state, meta

    def _is_of_another_net(self, step: int, template: PyTree) -> bool:
        """Whether names or shapes of the arrays are others than the template's; False where nothing tells them."""
        try:
            with ocp.StandardCheckpointer() as reader:
                there = reader.metadata(self.folder / str(step) / 'state').item_metadata.tree
            return _shapes(there) != _shapes(template)
        except Exception:  # damaged as well; the caller raises what it met
            return False


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape) for path, leaf in leaves}
