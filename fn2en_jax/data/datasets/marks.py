"""Which files each set is made of, by their names alone: to tell quickly whether it is there, and whether it changed.

`Dataset.find` has the last word on both; tests hold it against these patterns.
"""

import dataclasses

_EMOTIONS = 'anger|disgust|fear|happiness|sadness|surprise'
_SFEW = 'angry|disgust|fear|happy|neutral|sad|surprise'
_CKPLUS = r'S\d{3}/\d{3}/S\d{3}_\d{3}_\d{8}'
_FER_TABLE = r'(?:fer2013|icml_face_data)\.csv'
_FER_PARTS = 'train|training|validation|publictest|test|privatetest'
_FER_NAME = r'(?:(?:Training|PublicTest|PrivateTest)_|im)?\d+\.(?:jpe?g|png)'
_RAFDB = r'(?:train|test)_\d{1,9}'


@dataclasses.dataclass(frozen=True)
class Marks:
    """Patterns of names, as `records.Tree.match` takes them.

    Attributes:
        needed: without a file for each of them the set is not there.
        more: what is read besides, where it is there; without the user's own lists, see `LISTS`.
    """

    needed: tuple[str, ...]
    more: tuple[str, ...] = ()


MARKS = {
    'ckplus': Marks((rf'{_CKPLUS}\.png', rf'{_CKPLUS}_emotion\.txt'), (rf'{_CKPLUS}_landmarks\.txt',)),
    'oulu_casia': Marks((rf'VL(?:_Acropped)?/Strong/P\d{{3}}/(?:{_EMOTIONS})/[^/]+\.jpe?g',)),
    'tfd': Marks((r'TFD_(?:ranzato_)?(?:48x48|96x96)\.mat',), (r'TFD_[^/]+\.mat',)),
    'sfew': Marks(
        (rf'(?:train|val)_aligned_faces(?:_new)?/(?:{_SFEW})/[^/]+_\d+_\d+\.(?:jpe?g|png)|sfew_2\.0_labels\.csv',),
        (r'sfew2\.0_images/[^/]+',),
    ),
    'sfew_frames': Marks((rf'(?:train|val)/(?:{_SFEW})/[^/]+_\d+_\d+\.(?:jpe?g|png)',)),
    'fer2013': Marks((rf'{_FER_TABLE}|(?:{_FER_PARTS})/(?:{_SFEW})/{_FER_NAME}',)),
    'ferplus': Marks((_FER_TABLE, r'fer2013new\.csv')),
    'mmi': Marks(
        (r'\d+/S\d{3}-\d{3}[^/]*\.(?:avi|jpe?g|png)', r'\d+/S\d{3}-\d{3}[^/]*\.xml', r'\d+/session\.xml'),
    ),
    'affectnet': Marks(
        (r'(?:training|validation)\.csv', r'[^/]+/[^/]+\.(?:jpe?g?|png|bmp|tiff?|webp)'),
    ),
    'affectnet_npy': Marks(
        (
            r'(?:train|val|valid)_set/images/\d{1,12}\.(?:jpe?g|png)',
            r'(?:train|val|valid)_set/annotations/\d{1,12}_exp\.npy',
        ),
        (r'(?:train|val|valid)_set/annotations/\d{1,12}_lnd\.npy',),
    ),
    'rafdb': Marks(
        (r'list_par?tition_label\.txt', rf'{_RAFDB}(?:_aligned)?\.(?:jpe?g|png)'), (rf'{_RAFDB}_manu_attri\.txt',)
    ),
    'jaffe': Marks((r'[A-Z]{2}\.(?:AN|DI|FE|HA|NE|SA|SU)\d\.\d{1,3}\.tiff?',)),
}
