"""MMI: sessions of a clip (or stills) with metadata; an expression comes, peaks in the middle, and goes again."""

import collections
import csv
import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fn2en_jax.data import side_files
from fn2en_jax.data.datasets.copies import notes
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.data.side_files import Element
from fn2en_jax.data.video import VideoFrame, count_frames
from fn2en_jax.errors import UserError

_CODES = {1: 'anger', 2: 'disgust', 3: 'fear', 4: 'happiness', 5: 'sadness', 6: 'surprise'}  # larger ones exist
_FRONTAL, _PROFILE, _DUAL = '0', '1', '2'
_ONSET_APEX_OFFSET = '-oao_aucs'
_APEX = '2'  # type of a marker: 0 neutral, 1 onset, 2 apex, 3 offset; a phase lasts until the next marker

_MEDIUM = (
    r'(?P<session>\d+)/(?P<stem>(?P<subject>S\d{3})-(?P<number>\d{3})[^/]*)\.(?:(?P<clip>avi)|(?P<still>jpe?g|png))'
)
_LISTED = re.compile(r'(S\d{3})[-_](\d{3})(?:\.avi)?(?:_(\d{1,6})(?:\.png)?)?', re.IGNORECASE)  # first cell of a line
_LISTED_FRAME = re.compile(r'(\d{1,6})(?:\.png)?', re.IGNORECASE)  # its second cell
_NO_HEADER = re.compile(r'\bS\d|^\d', re.IGNORECASE)  # in a cell: a clip or a frame, perhaps misspelt
_PEAKS_LIST = 'peaks.csv'  # places the peaks of the clips it names
_CLIPS_LIST = 'clips.csv'  # the same, and no other clip is used
LISTS = (_CLIPS_LIST, _PEAKS_LIST)
_NAMED = 20  # clips left out that are named
_BAD_LINES = 5  # that are shown

_PEAKS = 3  # consecutive frames
_CLIPS = {'anger': 33, 'disgust': 32, 'fear': 29, 'happiness': 44, 'sadness': 32, 'surprise': 43}
_EXPECTED = {label: _PEAKS * count for label, count in _CLIPS.items()} | {'neutral': sum(_CLIPS.values())}


@dataclasses.dataclass(frozen=True)
class _Medium:
    """A clip or a still of a session, and the paths of the XML files beside it (None: not there)."""

    path: Path
    listed: str  # its name in the tree
    name: str  # session and file: '1713/S042-004.avi'
    subject: str
    sequence: str
    is_clip: bool
    label_file: Path | None
    session_file: Path | None
    phases_file: Path | None


class Mmi(Dataset):
    """The MMI facial expression database: the sessions with a basic emotion.

    Of every frontal or dual-view clip: its first frame as 'neutral', and three frames of its peak with the label. The
    peak is, by preference, what the user's clips.csv or peaks.csv says (a frame and its neighbours, or several frames),
    the apex of most action units where the clip is coded, or the middle of the clip. Where there is a clips.csv, only
    the clips and stills that it names are used. A dual view shows the face and its profile in a mirror side by side;
    the whole frame is taken, since only the face can tell in which half it is. Stills are taken as they are.
    """

    def find(self, tree: Tree) -> Found:
        media = _media(tree)
        if not media:
            raise self.foreign(tree, 'Sessions/1/S001-001.avi')
        skipped: list[str] = []
        peaks, chosen = (_read_list(tree, name) for name in (_PEAKS_LIST, _CLIPS_LIST))
        wanted = {**(peaks or {}), **{clip: frames for clip, frames in (chosen or {}).items() if frames}}
        records: list[Record] = []
        used: dict[str, _Medium] = {}
        copies: list[tuple[str, str]] = []
        left_out: set[str] = set()
        unusable: dict[str, str] = {}
        profiles = 0
        for medium in media:
            try:
                label = _label(medium)
                view = _view(medium) if label else ''
                profiles += view == _PROFILE
                if view not in (_FRONTAL, _DUAL):
                    unusable.setdefault(medium.sequence, 'is a profile view' if view else 'shows no basic emotion')
                    continue
                if chosen is not None and medium.sequence not in chosen:
                    left_out.add(medium.sequence)
                    continue
                first = used.setdefault(medium.sequence if medium.is_clip else medium.name, medium)
                if first is not medium:
                    copies.append((medium.listed, first.listed))
                    continue
                records += _records(medium, label, view, wanted.get(medium.sequence, ()), skipped)
            except UserError as error:
                skipped.append(f'{medium.listed}: {error}')
                unusable.setdefault(medium.sequence, '')  # the reason is told already
        there = {medium.sequence for medium in used.values()} | left_out
        missing, unused = _not_used({_CLIPS_LIST: chosen or {}, _PEAKS_LIST: peaks or {}}, there, unusable)
        skipped += unused
        if not records and left_out:
            reason = next(iter([*unused, *(f'{text}, is not there' for text in missing), *skipped]), 'it is empty')
            raise UserError(
                f'{tree.root}: {_CLIPS_LIST} names none of the {len(left_out)} clips that could be used ({reason})'
            )
        skipped += notes(copies) + _not_chosen(left_out)
        if not records:
            because = f' that can be read ({skipped[0]})' if skipped else ''
            raise self.foreign(tree, f'clip with an Emotion of {min(_CODES)} to {max(_CODES)} in its XML file{because}')
        edition = _edition(records, profiles, left_out)
        expected = _EXPECTED if chosen is None else {}  # nobody published numbers of a choice of the user's
        return Found(tuple(records), edition, expected, tuple(missing), tuple(skipped))


def _media(tree: Tree) -> list[_Medium]:
    """All clips and stills in the order of persons and clips; their XML files may come from another archive."""
    xml = {name.lower(): path for name, path in tree.files.items() if name.lower().endswith('.xml')}
    for name, path in list(xml.items()):
        xml.setdefault('/'.join(name.split('/')[-2:]), path)
    media = []
    for found, path in tree.match(_MEDIUM):
        folder = found.string.lower().rpartition('/')[0]
        stem = found['stem'].lower()
        media.append(
            _Medium(
                path,
                listed=found.string,
                name=f'{found["session"]}/{found.string.rpartition("/")[2]}',
                subject=found['subject'].upper(),
                sequence=f'{found["subject"]}-{found["number"]}'.upper(),
                is_clip=bool(found['clip']),
                label_file=_of_session(xml, folder, f'{stem}.xml'),
                session_file=_of_session(xml, folder, 'session.xml'),
                phases_file=_of_session(xml, folder, f'{stem}{_ONSET_APEX_OFFSET}.xml'),
            )
        )
    return sorted(media, key=lambda medium: (medium.sequence, medium.listed))


def _of_session(files: Mapping[str, Path], folder: str, name: str) -> Path | None:
    """A file in the folder of a session, or else in another one of the same number."""
    return files.get(f'{folder}/{name}') or files.get(f'{folder.rpartition("/")[2]}/{name}')


def _label(medium: _Medium) -> str:
    """The basic emotion of a medium; '' where it shows none, as most clips do."""
    if medium.label_file is None:
        raise UserError('the XML file of the same name is missing')
    values = [
        element.attributes.get('Value', '')
        for element in _elements(medium.label_file)
        if element.tag.lower() == 'metatag' and element.attributes.get('Name', '').lower() == 'emotion'
    ]
    if not values or not values[0].strip():
        return ''
    if not re.fullmatch(r'\s*\d{1,4}\s*', values[0]):
        raise UserError(f'{medium.label_file.name}: {values[0][:20]!r} is no code of an emotion')
    return _CODES.get(int(values[0]), '')


def _view(medium: _Medium) -> str:
    if medium.session_file is None:
        raise UserError('the view is unknown: session.xml is missing')
    tracks = [element.attributes for element in _elements(medium.session_file) if element.tag.lower() == 'track']
    named = [track for track in tracks if track.get('filename', '').lower() == medium.path.name.lower()]
    view = (named or tracks or [{}])[0].get('view', '').strip()
    if view not in (_FRONTAL, _PROFILE, _DUAL):
        raise UserError(f'the view is unknown: session.xml says {view[:20]!r}')
    return view


def _records(medium: _Medium, label: str, view: str, listed: Sequence[int], skipped: list[str]) -> list[Record]:
    if not medium.is_clip:
        return [Record(medium.path, medium.name, label, subject=medium.subject)]
    frames = count_frames(medium.path)
    if frames <= _PEAKS:
        raise UserError(f'{frames} frames, too few' if frames else 'cannot be opened as a clip')
    # Clips that nobody coded lie on their side; those that somebody coded, and all dual views, are upright.
    turns = 1 if view == _FRONTAL and medium.phases_file is None else 0
    peaks = _peaks(medium, frames, listed, skipped)
    return [_frame(medium, turns, 'neutral', 0), *(_frame(medium, turns, label, index) for index in peaks)]


def _frame(medium: _Medium, turns: int, label: str, index: int) -> Record:
    return Record(
        VideoFrame(medium.path, index, quarter_turns=turns),
        f'{medium.name}/{index:03}',
        label,
        subject=medium.subject,
        sequence=medium.sequence,
        frame=index,
    )


def _peaks(medium: _Medium, frames: int, listed: Sequence[int], skipped: list[str]) -> Sequence[int]:
    """The peak frames of a clip, counted from 0; the first frame of the clip is never among them.

    listed: by the user; a single frame is the peak itself, which its neighbours join, several are taken as they are.
    """
    inside = [index for index in listed if 0 < index < frames]
    for index in sorted(set(listed) - set(inside)):
        skipped.append(f'{medium.sequence} has no frame {index} that could be a peak, as listed')
    if len(set(listed)) > 1 and inside:
        return inside
    middle = inside[0] if inside else frames // 2
    if not inside and medium.phases_file is not None:
        try:
            middle = _apex(_elements(medium.phases_file), frames)
        except UserError as error:
            skipped.append(f'{medium.listed}: the middle frames are taken for its peak: {error}')
    first = min(max(1, middle - _PEAKS // 2), frames - _PEAKS)
    return range(first, first + _PEAKS)


def _apex(elements: Iterable[Element], frames: int) -> int:
    """The middle of the longest stretch in which the greatest number of action units is at its apex, from 0."""
    changes: collections.Counter[int] = collections.Counter()
    for markers in _phases(elements):
        for (frame, phase), (following, _) in itertools.pairwise([*markers, (frames + 1, '')]):
            end = min(following, frames + 1)
            if phase == _APEX and 1 <= frame < end:
                changes[frame] += 1
                changes[end] -= 1
    level, best = 0, (0, 0, 0)
    for start, end in itertools.pairwise(sorted(changes)):
        level += changes[start]
        best = max(best, (level, end - start, start), key=lambda stretch: stretch[:2])
    level, length, start = best
    if not level:
        raise UserError('no apex is marked in it')
    return start - 1 + (length - 1) // 2  # the file counts from 1


def _phases(elements: Iterable[Element]) -> list[list[tuple[int, str]]]:
    """Frame (from 1) and phase of the markers of each action unit, in the order of the frames."""
    units: list[list[tuple[int, str]]] = []
    for element in elements:
        frame = element.attributes.get('Frame', '').strip()
        if element.tag.lower() == 'actionunit':
            units.append([])
        elif element.tag.lower() == 'marker' and units and re.fullmatch(r'\d{1,6}', frame):
            units[-1].append((int(frame), element.attributes.get('Type', '').strip()))
    return [sorted(unit) for unit in units]


def _elements(path: Path) -> list[Element]:
    try:
        return side_files.elements(path)
    except UserError as error:
        raise UserError(f'{path.name} {error}') from error


def _read_list(tree: Tree, name: str) -> Mapping[str, list[int]] | None:
    """Frames by clip out of a list of the user's, None where there is none.

    Its lines are 'S042-004,30', the name of a frame 'S042_004_030.png', or a clip alone, of which no frame is told. The
    first one may name the columns.

    Raises:
        UserError: naming the lines that cannot be read: without them, clips would go silently.
    """
    for _, path in itertools.islice(tree.match(re.escape(name)), 1):
        listed: dict[str, list[int]] = {}
        bad: list[str] = []
        for number, line in enumerate(_lines(path), 1):
            cells = _cells(line)
            if found := _clip_and_frame(cells):
                listed.setdefault(found[0], []).extend(found[1])
            elif cells and (number > 1 or any(map(_NO_HEADER.search, cells))):
                bad.append(f'line {number}: {line[:40]!r}')
        if bad:
            more = f' and {len(bad) - _BAD_LINES} more' if len(bad) > _BAD_LINES else ''
            shown = ', '.join(bad[:_BAD_LINES])
            raise UserError(f"{path}: not like 'S042-004,30' or 'S042_004_030.png': {shown}{more}")
        return {clip: sorted(set(frames)) for clip, frames in listed.items()}
    return None


def _cells(line: str) -> list[str]:
    """The cells of a line between commas, semicolons or tabs, without quotes, and without empty ones at the end."""
    delimiter = next((mark for mark in '\t;' if mark in line), ',')
    try:
        cells = [
            cell.strip(' \t\'"') for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        ]
    except csv.Error:
        return [line]  # an endless cell, which names nothing
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _clip_and_frame(cells: Sequence[str]) -> tuple[str, list[int]] | None:
    """A clip and the frame that is told of it, if any; None for cells that say something else."""
    found = _LISTED.fullmatch(cells[0]) if 1 <= len(cells) <= 2 else None
    frame = _LISTED_FRAME.fullmatch(cells[1]) if len(cells) == 2 else None
    if not found or (len(cells) == 2 and (found[3] or not frame)):
        return None
    told = found[3] or (frame and frame[1])
    return f'{found[1]}-{found[2]}'.upper(), [int(told)] if told else []


def _not_used(
    lists: Mapping[str, Collection[str]], there: Collection[str], unusable: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """What of the user's lists is missing, and what is there and cannot be used, with its reason where that is known.

    Args:
        lists: the clips of each list, by its name.
        there: clips that can be used.
        unusable: why others that are there cannot, '' where that is told already.
    """
    absent = [(clip, f'{clip}, which {name} names') for name in lists for clip in sorted(lists[name])]
    absent = [(clip, text) for clip, text in absent if clip not in there]
    missing = [text for clip, text in absent if clip not in unusable]
    return missing, [f'{text}, {unusable[clip]}' for clip, text in absent if unusable.get(clip)]


def _not_chosen(clips: Collection[str]) -> list[str]:
    names = ', '.join(sorted(clips)[:_NAMED]) + (' ...' if len(clips) > _NAMED else '')
    return [f'{len(clips)} clips that {_CLIPS_LIST} does not name: {names}'] if clips else []


def _lines(path: Path) -> list[str]:
    try:
        return side_files.lines(path)
    except UserError as error:
        raise UserError(f'{path} {error}') from error


def _edition(records: Sequence[Record], profiles: int, left_out: Collection[str]) -> str:
    """Says what was left out, too: a profile is part of the set and no reason to warn."""
    clips = len({record.sequence for record in records if record.sequence})
    stills = sum(not record.sequence for record in records)
    media = f'{clips} clips' + (f' and {stills} stills' if stills else '')
    persons = len({record.subject for record in records})
    without = [f'{profiles} profile views'] * bool(profiles)
    without += [f'{len(left_out)} clips that {_CLIPS_LIST} does not name'] * bool(left_out)
    return f'{media} of {persons} persons' + (f', without {" and ".join(without)}' if without else '')


MMI = Mmi(
    name='mmi',
    title='MMI',
    access='sign the licence at https://mmifacedb.eu',
    layout='Sessions/<number>/S001-001.avi with S001-001.xml and session.xml; optionally peaks.csv (clip,frame from 0)'
    ' or clips.csv (the same; only its clips are used)',
    faces='align',
)
