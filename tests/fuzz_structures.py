"""Damage that keeps a file's form: its parts are swapped, doubled, left out, or say something else of themselves.

Changed bytes mostly break a length or a tag near by. Here a file is taken apart into its own units, those are changed,
and lengths and checksums are made anew, so that what is wrong is met far inside the reader.
"""

import copy
import io
import itertools
import json
import pickletools
import zipfile
import zlib

import numpy as np

SIZES = (0, 1, 2, 3, 7, 64, 255, 4096, 65535, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)


def changed(parts, draw, alter):
    """One list with one change: a part swapped, doubled, moved, left out, or altered by `alter`."""
    parts = list(parts)
    if not parts:
        return parts
    kind, at, other = int(draw.integers(0, 7)), *(int(draw.integers(0, len(parts))) for _ in range(2))
    if kind == 0:
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 1:
        parts.insert(other, parts[at])
    elif kind == 2:
        parts[at] = parts[other]
    elif kind == 3:
        del parts[at]
    else:
        parts[at] = alter(parts[at])
    return parts


def damage(tree, draw, alter):
    """One change somewhere in a tree: lists of parts, of each of which the last item is its content or such a list."""
    waiting, lists = [tree], []
    while waiting:
        lists.append(waiting.pop())
        waiting += [part[-1] for part in lists[-1] if isinstance(part[-1], list)]
    outer = [parts for parts in lists if any(isinstance(part[-1], list) for part in parts)]
    lists = [parts for parts in (outer if outer and draw.random() < 0.7 else lists) if parts]
    if not lists:
        return
    chosen, donor = (lists[int(draw.integers(0, len(lists)))] for _ in range(2))
    if draw.random() < 0.4:  # something sound, in a place where something else belongs
        part = copy.deepcopy(donor[int(draw.integers(0, len(donor)))])
        chosen[int(draw.integers(0, len(chosen)))] = part
    else:
        chosen[:] = changed(chosen, draw, alter)


def number(draw, width):
    return (int(draw.choice(np.array(SIZES, object))) & (1 << 8 * width) - 1).to_bytes(width, 'little')


def scrambled(content, draw):
    """Bytes with one number in them replaced, or of another length."""
    content, kind = bytearray(content), int(draw.integers(0, 4))
    at, width = int(draw.integers(0, len(content) + 1)), int(draw.choice([1, 2, 4, 8]))
    if kind == 0:
        return bytes(content[:at])
    if kind == 1:
        return bytes(content + content[:at])
    content[at : at + width] = number(draw, width)[: len(content) - at]
    return bytes(content)


# ----------------------------------------------------------------------------------------------------------- MATLAB

MATRIX, COMPRESSED = 14, 15


def elements(raw):
    """[type, content], where the content of a matrix is again such a list."""
    found, at = [], 0
    while at + 8 <= len(raw):
        kind, small = int.from_bytes(raw[at : at + 2], 'little'), int.from_bytes(raw[at + 2 : at + 4], 'little')
        length = small or int.from_bytes(raw[at + 4 : at + 8], 'little')
        begin = at + (4 if small else 8)
        content = raw[begin : begin + length]
        found.append([kind, elements(content) if kind == MATRIX else content])
        at = at + 8 if small else begin + length + (0 if kind == COMPRESSED else -length % 8)
    return found


def joined(found):
    out = b''
    for kind, content in found:
        content = joined(content) if isinstance(content, list) else content
        padding = b'' if kind == COMPRESSED else bytes(-len(content) % 8)
        out += (kind & 0xFFFFFFFF).to_bytes(4, 'little') + len(content).to_bytes(4, 'little') + content + padding
    return out


def matlab(data, draw):
    variables = elements(data[128:])
    packed = any(kind == COMPRESSED for kind, _ in variables)
    variables = [
        elements(zlib.decompress(content))[0] if kind == COMPRESSED else [kind, content] for kind, content in variables
    ]

    def alter(element):
        kind, content = element
        if draw.random() < 0.2:
            return [int(draw.integers(0, 20)), content]
        return [kind, content if isinstance(content, list) else scrambled(content, draw)]

    for _ in range(int(draw.integers(1, 4))):
        damage(variables, draw, alter)
    found = [[COMPRESSED, zlib.compress(joined([variable]), 1)] if packed else variable for variable in variables]
    return data[:128] + joined(found)


# ------------------------------------------------------------------------------------------------------------ Caffe

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
INSIDE = {(): (2, 100), (2,): (1, 6, 10, 19), (100,): (7, 106, 121), (2, 6): (7,), (100, 7): (7,), (2, 1): (50,)}


def read_varint(raw, at):
    value = shift = 0
    while True:
        value |= (raw[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 128:
            return value, at


def write_varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fields(raw, path=()):
    """[number, wire type, value], where the value of a message known to be one is again such a list."""
    found, at = [], 0
    while at < len(raw):
        key, at = read_varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = read_varint(raw, at)
        else:
            length, at = read_varint(raw, at) if wire == BYTES else ({FIXED32: 4, FIXED64: 8}[wire], at)
            value, at = raw[at : at + length], at + length
        inner = wire == BYTES and number in INSIDE.get(path, ())
        found.append([number, wire, fields(value, (*path, number)) if inner else value])
    return found


def message(found):
    out = b''
    for number, wire, value in found:
        value = message(value) if isinstance(value, list) else value
        value = write_varint(value) if wire == VARINT else (write_varint(len(value)) if wire == BYTES else b'') + value
        out += write_varint(number << 3 | wire) + value
    return out


def caffe(data, draw):
    def alter(field):
        number, wire, value = field
        if draw.random() < 0.2:
            return [int(draw.choice([1, 2, 3, 4, 5, 6, 7, 8, 10, 19, 50, 100, 106])), wire, value]
        if isinstance(value, list):
            return [number, wire, [*value, *value]]
        if wire == VARINT:
            return [number, wire, int(draw.choice(np.array(SIZES, object)))]
        content = scrambled(value, draw) if wire == BYTES else value[::-1]
        return [number, wire, content]

    found = fields(data)
    for _ in range(int(draw.integers(1, 4))):
        damage(found, draw, alter)
    return message(found)


# ---------------------------------------------------------------------------------------------------------- PyTorch


def operations(raw):
    """The operations of a pickle, as bytes."""
    places = [place for _, _, place in pickletools.genops(raw)] + [len(raw)]
    return [raw[begin:end] for begin, end in itertools.pairwise(places)]


def pickled(raw, draw):
    found = operations(raw)
    codes = [code.code.encode('latin-1') for code in pickletools.opcodes if code.arg is None]

    def alter(operation):
        if len(operation) == 1 or draw.random() < 0.2:
            return codes[int(draw.integers(0, len(codes)))]
        if operation[:1] == b'X':  # a text, whose length goes before it
            text = scrambled(operation[5:], draw)
            return b'X' + len(text).to_bytes(4, 'little') + text
        return operation[:1] + scrambled(operation[1:], draw)[: len(operation) - 1].ljust(len(operation) - 1, b'\0')

    for _ in range(int(draw.integers(1, 4))):
        found = [*changed(found[:-1], draw, alter), found[-1]]
    return b''.join(found)


def torch_zip(data, draw):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    if draw.random() < 0.3:
        members = changed(members, draw, lambda member: (member[0], scrambled(member[1], draw)))
    else:
        members = [(name, pickled(raw, draw) if name.endswith('data.pkl') else raw) for name, raw in members]
    with zipfile.ZipFile(out, 'w') as archive:
        for name in dict(members):
            archive.writestr(name, dict(members)[name])
    return out.getvalue()


def torch_stream(data, draw):
    ends, at = [], 0
    for _ in range(5):  # magic, protocol, system, state dict, keys; the values follow
        at += [place for _, _, place in pickletools.genops(data[at:])][-1] + 1
        ends.append(at)
    parts = [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    which = int(draw.choice([1, 2, 3, 3, 3, 3, 3, 4]))
    parts[which] = pickled(parts[which], draw)
    return b''.join(parts)


# ------------------------------------------------------------------------------------------------------ safetensors


def safetensors(data, draw):
    length = int.from_bytes(data[:8], 'little')
    header = list(json.loads(data[8 : 8 + length]).items())

    def alter(entry):
        name, value = entry
        if not isinstance(value, dict):
            return name, draw.choice(SIZES[:6]).item()
        items = changed(list(value.items()), draw, lambda item: (item[0], odd(item[1])))
        return name, dict(items)

    def odd(value):
        choices = [None, [], {}, '', 'F16', 1.5, True, [1, 2], -1, [0, 4], 1 << 40, 'params/x', '[[1]]', '1e400', '{}']
        return [value, *choices][int(draw.integers(0, 1 + len(choices)))]

    for _ in range(int(draw.integers(1, 3))):
        header = changed(header, draw, alter)
    text = json.dumps(dict(header)).encode()
    return len(text).to_bytes(8, 'little') + text + data[8 + length :]


FORMS = {
    'matconvnet': matlab,
    'caffe': caffe,
    'pytorch-zip': torch_zip,
    'pytorch-stream': torch_stream,
    'safetensors': safetensors,
}
