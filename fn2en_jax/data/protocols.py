"""How the field uses each published set: which classes and frames, and who is tested when.

A protocol only chooses examples and fills in their columns (`folds`, `splits`); `folds.make_folds` alone turns the
columns into folds and checks them. The rules: docs/datasets.md.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from fn2en_jax.data.examples import Examples, together
from fn2en_jax.errors import UserError

BASIC = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
WITH_NEUTRAL = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
WITH_CONTEMPT = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
ALL = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')

STEP, BLOCKS, OFFICIAL = 'step', 'blocks', 'official'
RULES = (STEP, BLOCKS, OFFICIAL)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one set is used.

    Attributes:
        classes: class names by their number; the first is the default.
        rule: how persons are dealt to folds: STEP (ascending IDs, every k-th), BLOCKS (ascending IDs, contiguous), or
            OFFICIAL (the splits or folds that the set brings).
        test: for OFFICIAL splits, which of them tests; 'train' trains, and 'validation', unless tested, is watched.
    """

    classes: Mapping[int, tuple[str, ...]]
    rule: str
    test: str = 'validation'


PROTOCOLS = {
    'ckplus': Protocol({8: ALL, 7: WITH_CONTEMPT, 6: BASIC}, STEP),
    'oulu_casia': Protocol({6: BASIC}, STEP),
    'tfd': Protocol({7: WITH_NEUTRAL}, OFFICIAL),
    'sfew': Protocol({7: WITH_NEUTRAL}, OFFICIAL),
    'sfew_frames': Protocol({7: WITH_NEUTRAL}, OFFICIAL),
    'fer2013': Protocol({7: WITH_NEUTRAL}, OFFICIAL, test='test'),
    'ferplus': Protocol({8: ALL, 7: WITH_NEUTRAL}, OFFICIAL, test='test'),
    'mmi': Protocol({6: BASIC}, BLOCKS),
    'affectnet': Protocol({8: ALL, 7: WITH_NEUTRAL}, OFFICIAL),
    'affectnet_npy': Protocol({8: ALL, 7: WITH_NEUTRAL}, OFFICIAL),
    'rafdb': Protocol({7: WITH_NEUTRAL}, OFFICIAL, test='test'),
    'jaffe': Protocol({7: WITH_NEUTRAL, 6: BASIC}, STEP),
}


# Sets of sets that have images in common. TFD was put together from others.
SHARING = (
    {'sfew', 'sfew_frames'},
    {'fer2013', 'ferplus'},
    {'affectnet', 'affectnet_npy'},
    {'tfd', 'ckplus'},
    {'tfd', 'mmi'},
    {'tfd', 'jaffe'},
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a run asks of a protocol; 0 and '' take the protocol's own.

    Attributes:
        classes: number of classes.
        rule: one of RULES.
        num_folds: of STEP and BLOCKS.
        subjects: whose IDs are dealt out: 'all' who are stored (in CK+ the 118 with a label), or 'chosen', who have an
            image of the chosen classes.
        test: the split that tests.
        deal: whether persons are dealt to folds; False where a file of the user's says who is tested.
    """

    classes: int = 0
    rule: str = ''
    num_folds: int = 10
    subjects: str = 'all'
    test: str = ''
    deal: bool = True


def apply(name: str, examples: Examples, choice: Choice) -> Examples:
    """The examples that the protocol of the set `name` uses, with their folds or splits.

    Raises:
        UserError: for a choice that the set does not offer.
    """
    protocol = PROTOCOLS[name]
    chosen = with_classes(examples, _classes(name, protocol, choice))
    rule = choice.rule or protocol.rule
    if rule not in RULES:
        raise UserError(f'config.data.fold_rule is {rule!r}; use {", ".join(RULES)}')
    if rule == OFFICIAL != protocol.rule:
        raise UserError(f'config.data.fold_rule is {rule!r}, but {name} brings no division; use {STEP} or {BLOCKS}')
    if choice.test and (rule != OFFICIAL or examples.official_folds is not None):
        raise UserError(f'config.data.test_split is {choice.test!r}, but {name} is tested in folds')
    if choice.subjects not in ('all', 'chosen'):
        raise UserError(f"config.data.fold_subjects is {choice.subjects!r}; use 'all' or 'chosen'")
    if rule == OFFICIAL:
        if choice.subjects != 'all':
            raise UserError(f'config.data.fold_subjects is {choice.subjects!r}, but {name} brings its own division')
        return _official(name, chosen, choice.test or protocol.test)
    if not choice.deal:  # all may be tested, unlike what `join` adds
        return dataclasses.replace(chosen, folds=np.zeros(len(chosen), np.int32), splits=None, official_folds=None)
    dealt = examples if choice.subjects == 'all' else chosen
    return _dealt(name, chosen, dealt, rule, choice.num_folds)


def with_classes(examples: Examples, class_names: Sequence[str]) -> Examples:
    """The examples of these classes, numbered in their order; raises UserError where there is none at all."""
    number = {name: k for k, name in enumerate(class_names)}
    new = np.array([number.get(name, -1) for name in examples.class_names], np.int32)[examples.labels]
    kept = examples.take(np.flatnonzero(new >= 0))
    if not len(kept):
        raise UserError(f'none of the images shows {", ".join(class_names)}')
    return dataclasses.replace(kept, labels=new[new >= 0], class_names=tuple(class_names))


def deal(subjects: Sequence[str], rule: str, num_folds: int) -> dict[str, int]:
    """The fold that tests each person, persons in ascending order of their IDs.

    STEP: fold k tests persons k, k + num_folds, ... (Liu et al. 2013 and the FER literature after them). BLOCKS: with n
    persons, block i holds persons round(i n / num_folds) up to the next such number, and fold k tests block
    num_folds - 1 - k (the published lists of FMPN, Chen et al. 2019).

    Raises:
        UserError: for more folds than persons.
    """
    names = sorted(set(subjects))
    if not 2 <= num_folds <= len(names):
        raise UserError(f'cannot make {num_folds} folds of {len(names)} persons: choose 2 to {len(names)}')
    if rule == STEP:
        return {name: place % num_folds for place, name in enumerate(names)}
    bounds = np.array([round(block * len(names) / num_folds) for block in range(1, num_folds + 1)])
    blocks = np.searchsorted(bounds, np.arange(len(names)), side='right')
    return {name: num_folds - 1 - int(block) for name, block in zip(names, blocks, strict=True)}


def join(examples: Examples, extra: Examples, name: str) -> Examples:
    """The examples, and those of the set `name` that show one of their classes, trained on in every fold, never tested.

    Raises:
        UserError: when the sets share no class.
    """
    extra = with_classes(extra, examples.class_names)
    more = len(extra)
    unknown = np.full(more, -1, np.int32)
    subjects, splits, official = examples.subjects, examples.splits, examples.official_folds
    return dataclasses.replace(
        examples,
        images=together((examples.images, extra.images)),
        labels=np.concatenate([examples.labels, extra.labels]),
        files=examples.files + tuple(f'{name}/{file}' for file in extra.files),
        subjects=None if subjects is None else subjects + _strangers(extra, name),
        folds=None if examples.folds is None else np.concatenate([examples.folds, unknown]),
        splits=None if splits is None else splits + ('train',) * more,
        sequences=None if examples.sequences is None else examples.sequences + ('',) * more,
        frames=None if examples.frames is None else np.concatenate([examples.frames, unknown]),
        official_folds=None if official is None else official + ('t' * len(official[0]),) * more,
    )


def check_extra(name: str, extra: str) -> None:
    """Refuses an extra set whose images the set `name` may test.

    Raises:
        UserError: naming both.
    """
    if any({name, extra} <= family for family in ({name}, *SHARING)):
        raise UserError(f'config.data.extra is {extra!r}, which shares images with {name}: it would train on the test')


def _strangers(extra: Examples, name: str) -> tuple[str, ...]:
    """Persons of the set `name`, told from those of other sets; without a name, an image is of its own."""
    subjects = extra.subjects or ('',) * len(extra)
    return tuple(f'{name}/{person or file}' for person, file in zip(subjects, extra.files, strict=True))


def _classes(name: str, protocol: Protocol, choice: Choice) -> tuple[str, ...]:
    number = choice.classes or next(iter(protocol.classes))
    if number not in protocol.classes:
        offered = ' or '.join(map(str, protocol.classes))
        raise UserError(f'config.data.classes is {number}; {name} is used with {offered}')
    return protocol.classes[number]


def _official(name: str, examples: Examples, test: str) -> Examples:
    if examples.official_folds is not None:
        return examples
    if test == 'train':
        raise UserError(f"config.data.test_split is 'train', which {name} trains on; use validation or test")
    if examples.splits is None or test not in examples.splits:
        there = ', '.join(sorted(set(examples.splits or ()) - {''})) or 'none'
        raise UserError(f'{name} has no split {test!r} to test on; its splits: {there}')
    meaning = {'train': 'train', 'validation': 'validation', test: 'test'}  # or tested
    splits = tuple(meaning.get(split, '') for split in examples.splits)
    return dataclasses.replace(examples, splits=splits)


def _dealt(name: str, examples: Examples, whose: Examples, rule: str, num_folds: int) -> Examples:
    known = examples.known_subjects
    if examples.subjects is None or whose.subjects is None or not known.any():
        raise UserError(f'{name} names no persons, so the fold rule {rule!r} has nothing to deal out')
    if lost := int((~known).sum()):
        logging.warning('%s does not say who %d images show: the fold rule %r leaves them out', name, lost, rule)
        examples = examples.take(np.flatnonzero(known))
    folds = deal([subject for subject in whose.subjects if subject], rule, num_folds)
    numbers = np.array([folds[subject] for subject in examples.subjects or ()], np.int32)
    return dataclasses.replace(examples, folds=numbers, splits=None, official_folds=None)
