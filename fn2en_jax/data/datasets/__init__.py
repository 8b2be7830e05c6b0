"""The published sets: one file each, one explicit table."""

from fn2en_jax.data.datasets.affectnet import AFFECTNET
from fn2en_jax.data.datasets.affectnet_npy import AFFECTNET_NPY
from fn2en_jax.data.datasets.ckplus import CKPLUS
from fn2en_jax.data.datasets.fer2013 import FER2013
from fn2en_jax.data.datasets.ferplus import FERPLUS
from fn2en_jax.data.datasets.jaffe import JAFFE
from fn2en_jax.data.datasets.mmi import LISTS as MMI_LISTS
from fn2en_jax.data.datasets.mmi import MMI
from fn2en_jax.data.datasets.oulu_casia import OULU_CASIA
from fn2en_jax.data.datasets.own_landmarks import LIST as LANDMARKS
from fn2en_jax.data.datasets.rafdb import RAFDB
from fn2en_jax.data.datasets.sfew import SFEW, SFEW_FRAMES
from fn2en_jax.data.datasets.tfd import TFD
from fn2en_jax.data.records import Dataset

_ALL = (
    CKPLUS,
    OULU_CASIA,
    TFD,
    SFEW,
    SFEW_FRAMES,
    FER2013,
    FERPLUS,
    MMI,
    AFFECTNET,
    AFFECTNET_NPY,
    RAFDB,
    JAFFE,
)
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}

# Files of the user's own beside a download that decide what of it is stored, by the name of the set.
LISTS: dict[str, tuple[str, ...]] = dict.fromkeys(DATASETS, (LANDMARKS,))
LISTS[MMI.name] += MMI_LISTS
