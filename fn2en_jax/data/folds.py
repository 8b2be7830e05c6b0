"""Which examples train a net and which test it: person-independent folds, made, checked, written, read."""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging

from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError

_LISTS = ('test_files', 'validation_files', 'unused_files')  # of a fold in `folds.json`
# 'all' and 'none' are values of config.fold, the others are folders of a workdir or of a fold.
_RESERVED = ('all', 'none', 'face_net', 'finetune', 'stage1', 'stage2', 'scratch', 'tensorboard')
Lists = tuple[tuple[str, ...], ...]  # the files of a fold, as _LISTS
DEFAULT_NUM = 5  # of config.data.num_folds where a config does not say otherwise


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """One way to divide a set.

    Attributes:
      name: 'fold0', 'fold1', ... where every example is tested once; 'test' for a single given split; 'all'
        without a test.
      train: positions in the set, int64 [n], ascending.
      test: likewise, int64 [m]; disjoint from `train`.
      validation: likewise, disjoint from both, often empty: what is watched while the net trains, where the set keeps
        images for that, so that nobody looks at the test images before the end.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    validation: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(0))

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The positions by the name of their part; validation only where there is one."""
        parts = {'train': self.train, 'validation': self.validation, 'test': self.test}
        return {name: ids for name, ids in parts.items() if len(ids) or name != 'validation'}


def make_folds(examples: Examples, *, num_folds: int, seed: int, published: bool = False) -> tuple[Fold, ...]:
    """The folds of a set: those given with it, else `num_folds` stratified ones.

    Official folds are taken as they are, a given split is a single fold, given fold numbers are one fold each (-1 is
    trained on in all of them). Otherwise the examples are distributed so that each person stays in one fold and the
    class proportions are as equal as that allows; images of unknown persons by class alone, with a warning.
    `num_folds` and `seed` matter only then. `published`: whether this is a published set, whose own official folds or
    split are used as they are: a person on both sides is then warned of and not refused.

    Raises:
      UserError: a fold without test or training image, a person on both sides, a class without training
        image, or too few persons for `num_folds`.
    """
    if examples.official_folds is not None:
        folds: tuple[Fold, ...] = _official(examples.official_folds)
    elif _brings_folds(examples):
        folds = (_split(examples),)
    elif examples.folds is not None:
        folds = _given(examples.folds)
    else:
        folds = _stratified(examples, num_folds, seed)
    if num_folds not in (len(folds), DEFAULT_NUM):
        logging.warning(
            'config.data.num_folds is %d and is not used: the data brings %s',
            num_folds,
            f'{len(folds)} folds' if len(folds) > 1 else 'a division into training and test',
        )
    if (unknown := int((~examples.known_subjects).sum())) and not published:
        logging.warning(
            '%s: the folds cannot be kept person-independent, so a person may be both '
            'trained on and tested, and the accuracy will look better than it is. '
            'Add a column `subject` to the table.',
            f'Of {unknown} images no subject is given' if unknown < len(examples) else 'No subjects are given',
        )
    _check(folds, examples, published=published)
    return folds


def all_data(examples: Examples) -> Fold:
    """The fold named 'all': train on everything, test nothing."""
    return Fold('all', np.arange(len(examples)), np.arange(0))


def to_json(folds: Sequence[Fold], examples: Examples) -> dict[str, Any]:
    """What `folds.json` says: per fold the test files by source name, and the class counts of every part.

    Where a fold has validation images, they are its `validation_files`; where it leaves images out, its `unused_files`.
    """
    return {
        'class_names': list(examples.class_names),
        'num_examples': len(examples),
        'person_independent': bool(examples.known_subjects.all()),
        'folds': [
            {
                'name': fold.name,
                **{f'{part}_counts': examples.class_counts(ids) for part, ids in fold.parts.items()},
                'test_files': [examples.files[i] for i in fold.test],
                **_beside(fold, examples),
            }
            for fold in folds
        ],
    }


def from_json(content: Any, examples: Examples, *, source: str = 'folds', published: bool = False) -> tuple[Fold, ...]:
    """Reads folds in the form of `to_json`; of each fold only `name` and `test_files` are needed.

    What a fold neither tests nor lists as validation or unused, it trains on. `published`: whether these are the folds
    that `make_folds` made of a published set, and not a user's own, of which a person on both sides is always refused.

    A fold is warned of that trains on what the set keeps for validation beside the images that the fold tests.

    Raises:
      UserError: naming `source`, for another form, a file that the set lacks, a file tested twice (or more often than
        the set's official folds test it), with several folds a file never tested, and whatever `make_folds` refuses.
    """
    entries = _entries(content, source)
    names = [entry['name'] for entry in entries]
    if bad := [name for name in names if name in ('', *_RESERVED) or '.' in name or Path(name).name != name]:
        raise UserError(f'{source}: a fold cannot be named {bad[0]!r}, use a word that can name a folder')
    if len(set(names)) < len(names):
        raise UserError(f'{source}: fold names must differ, found {", ".join(names)}')
    place = {file: i for i, file in enumerate(examples.files)}
    tested, watched, unused = ([_listed(entry, key, place, source) for entry in entries] for key in _LISTS)
    for name, lists in zip(names, zip(tested, watched, unused, strict=True), strict=True):
        if (twice := np.sum(lists, axis=0) > 1).any():
            raise UserError(f'{source}: fold {name} has {examples.files[int(np.argmax(twice))]!r} in two of its lists')
    _check_tested(tested, examples, source)
    folds = tuple(
        Fold(name, np.flatnonzero(~test & ~watch & ~left), np.flatnonzero(test), np.flatnonzero(watch))
        for name, test, watch, left in zip(names, tested, watched, unused, strict=True)
    )
    _check(folds, examples, source, published=published)
    for fold in folds:
        _warn_of_validation(fold, examples, source)
    return folds


def read_json(path: str | Path, examples: Examples, *, published: bool = False) -> tuple[Fold, ...]:
    """The folds in a file written from `to_json`; UserError as `from_json`, or if there is no such file."""
    try:
        content = json.loads(Path(path).read_text('utf-8'))
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    except ValueError as error:
        raise UserError(f'{path}: is not JSON ({error})') from error
    return from_json(content, examples, source=str(path), published=published)


def lists(content: Any, source: str) -> dict[str, Lists]:
    """What decides who trains and who tests: the files of every fold in the form of `to_json` that tests any, by name.

    The order of folds and files does not matter.

    Raises:
      UserError: naming `source`, for another form.
    """
    return {
        entry['name']: tuple(tuple(sorted(entry.get(key, []))) for key in _LISTS)
        for entry in _entries(content, source)
        if entry['test_files']
    }


class HasSubjects(Protocol):
    """A `Table` or `Examples`."""

    @property
    def subjects(self) -> tuple[str, ...] | None: ...


def shared_persons(identities: HasSubjects, expressions: HasSubjects) -> list[str]:
    """Persons of the face net's training set who are also in the expression set, as spelled there, sorted.

    Spelling is compared without case and without telling spaces, hyphens and underscores apart. Empty where
    either set names no subjects.
    """
    known = {_person(name) for name in identities.subjects or () if name}
    return sorted(name for name in set(expressions.subjects or ()) if name and _person(name) in known)


def _person(name: str) -> str:
    return ' '.join(name.casefold().replace('_', ' ').replace('-', ' ').split())


def _fold(name: str, tested: np.ndarray) -> Fold:
    """`tested` bool [N]."""
    return Fold(name, np.flatnonzero(~tested), np.flatnonzero(tested))


def _split(examples: Examples) -> Fold:
    splits = np.array(examples.splits)
    return Fold('test', *(np.flatnonzero(splits == part) for part in ('train', 'test', 'validation')))


def _official(words: Sequence[str]) -> tuple[Fold, ...]:
    """A fold per letter of the words: 't' trains, 'e' tests, 'v' is for validation."""
    letters = np.array([list(word) for word in words])
    return tuple(
        Fold(f'fold{k}', *(np.flatnonzero(column == letter) for letter in 'tev')) for k, column in enumerate(letters.T)
    )


def _given(numbers: np.ndarray) -> tuple[Fold, ...]:
    """One fold per number up to the highest, so that a number left out shows as a fold without test."""
    return tuple(
        _fold(f'fold{k}', numbers == k) for k in range(int(numbers[numbers >= 0].min()), int(numbers.max()) + 1)
    )


def _stratified(examples: Examples, num_folds: int, seed: int) -> tuple[Fold, ...]:
    # An image of an unknown person is a unit of its own; no file's name begins like that.
    subjects = examples.subjects or ('',) * len(examples)
    units = [name or f'\0{file}' for name, file in zip(subjects, examples.files, strict=True)]
    count, noun = len(set(units)), 'persons' if examples.subjects else 'images'
    if num_folds < 2 or num_folds > count:
        raise UserError(f'cannot make {num_folds} folds of {count} {noun}: choose 2 to {count}')
    from sklearn import model_selection  # a second to import, and most runs bring or are given their folds

    kind = model_selection.StratifiedGroupKFold if examples.subjects else model_selection.StratifiedKFold
    splitter = kind(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer members than folds is no mistake: some folds do not test it, as the counts show.
        warnings.filterwarnings('ignore', 'The least populated class', UserWarning)
        parts = list(splitter.split(np.zeros(len(examples)), examples.labels, units if examples.subjects else None))
    return tuple(Fold(f'fold{k}', train, test) for k, (train, test) in enumerate(parts))


def _entries(content: Any, source: str) -> list[Any]:
    entries = content.get('folds') if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries or not all(_is_entry(entry) for entry in entries):
        raise UserError(
            f'{source}: not a folds file; expected {{"folds": [{{"name": ..., "test_files": [...]}}, ...]}}'
        )
    return entries


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and isinstance(entry.get('name'), str)
        and 'test_files' in entry
        and all(_are_names(entry.get(key, [])) for key in _LISTS)
    )


def _are_names(files: Any) -> bool:
    return isinstance(files, list) and all(isinstance(file, str) for file in files)


def _beside(fold: Fold, examples: Examples) -> dict[str, list[str]]:
    """The files of a fold that neither train nor test, by the key of their list; no key without any."""
    left = np.ones(len(examples), bool)
    left[np.concatenate(list(fold.parts.values()))] = False
    lists = {'validation_files': fold.validation, 'unused_files': np.flatnonzero(left)}
    return {key: [examples.files[i] for i in ids] for key, ids in lists.items() if len(ids)}


def _listed(entry: Mapping[str, Any], key: str, place: Mapping[str, int], source: str) -> np.ndarray:
    """Which examples an entry lists, bool [N]."""
    chosen = np.zeros(len(place), bool)
    for file in entry.get(key, []):
        if file not in place:
            raise UserError(f'{source}: {key} of fold {entry["name"]} has {file!r}, which is not in the data')
        if chosen[place[file]]:
            raise UserError(f'{source}: {key} of fold {entry["name"]} has {file!r} twice')
        chosen[place[file]] = True
    return chosen


def _check_tested(tested: Sequence[np.ndarray], examples: Examples, source: str) -> None:
    """Every example that may be tested must be, once, where there are several folds.

    Official folds may test an example several times, or never: those of the file may do the same.
    """
    times = np.sum(tested, axis=0)
    most = np.ones(len(examples), np.int64)
    may = _may_be_tested(examples)
    if examples.official_folds is not None:
        official = np.array([word.count('e') for word in examples.official_folds])
        most, may = np.maximum(official, 1), may & (official > 0)
    if (often := times > most).any():
        first = int(np.argmax(often))
        words = 'twice' if times[first] == 2 else f'{times[first]} times'
        raise UserError(f'{source}: {examples.files[first]!r} is tested {words}')
    untested = (times == 0) & may
    if len(tested) > 1 and untested.any():
        raise UserError(f'{source}: {examples.files[int(np.argmax(untested))]!r} is in the data but no fold tests it')


def _warn_of_validation(fold: Fold, examples: Examples, source: str) -> None:
    if examples.official_folds is not None:  # of which those matter that test the same images
        own = [one for one in _official(examples.official_folds) if np.isin(fold.test, one.test).all()]
    else:
        own = [_split(examples)] if _brings_folds(examples) else []
    for one in own:
        if count := int(np.isin(fold.train, one.validation).sum()):
            logging.warning(
                '%s: fold %s trains on %d images that the set keeps for validation; '
                'list them as its validation_files, or as its unused_files',
                source,
                fold.name,
                count,
            )


def _check(folds: Sequence[Fold], examples: Examples, source: str = '', *, published: bool = False) -> None:
    where = f'{source}: ' if source else ''
    for fold in folds:
        for side, ids in (('test', fold.test), ('training', fold.train)):
            if not len(ids):
                raise UserError(f'{where}{fold.name} has no {side} image')
        counts = examples.class_counts(fold.train)
        absent = [name for name, count in counts.items() if not count]
        if absent:
            raise UserError(
                f'{where}{fold.name} has no training image of class {", ".join(absent)}: '
                'give the class more images of more persons, or use other folds'
            )
        if examples.subjects is not None:
            _check_persons(fold, examples.subjects, where, published and _brings_folds(examples))
    if len(folds) > 1 and examples.official_folds is None:
        _check_exhaustive(folds, _may_be_tested(examples), where)


def _check_persons(fold: Fold, subjects: Sequence[str], where: str, published: bool) -> None:
    persons = {part: {subjects[i] for i in ids} - {''} for part, ids in fold.parts.items()}
    verbs = {'train': 'trains on', 'validation': 'validates with', 'test': 'tests'}
    for one, other in itertools.combinations((part for part in verbs if part in persons), 2):
        if both := persons[one] & persons[other]:
            shown = ', '.join(sorted(both)[:5])
            _refuse_or_warn(f'{where}{fold.name} both {verbs[one]} and {verbs[other]} {shown}', published)


def _brings_folds(examples: Examples) -> bool:
    """Whether the set came with its division, so that its persons are not ours to keep apart."""
    return examples.official_folds is not None or bool(examples.splits and any(examples.splits))


def _may_be_tested(examples: Examples) -> np.ndarray:
    """bool [N]: all but what is given no fold where others are, which is only trained on."""
    return np.ones(len(examples), bool) if examples.folds is None else examples.folds >= 0


def _refuse_or_warn(fault: str, published: bool) -> None:
    if not published:
        raise UserError(f'{fault}: keep each person in one fold')
    logging.warning('%s, as the published protocol has it', fault)


def _check_exhaustive(folds: Sequence[Fold], tested: np.ndarray, where: str) -> None:
    """tested: bool [N], False for what is only trained on."""
    times = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(tested))
    if wrong := int((times != tested).sum()):
        raise UserError(f'{where}{wrong} images are not tested exactly once; the folds must divide the set')
