"""Reading a pickle as data: no name in it is ever resolved, nothing in it is ever called.

Python's own unpickler imports and calls what the stream names. This one knows the few opcodes and the few names that a
PyTorch state dict consists of, builds plain dicts, lists, tuples, numbers and texts, and refuses everything else.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import damaged, shown

_MOST_STEPS = 1_000_000
_MARK = object()


class Global(NamedTuple):
    """A name in the stream; it stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f'{self.module}.{self.name}')


Rebuild = Callable[[tuple], Any]


def load(
    data: bytes, start: int, names: dict[Global, Rebuild | None], persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, int]:
    """Reads one pickle of protocol 2 or newer.

    Args:
        data: holds the pickle.
        start: where in `data` it begins.
        names: the names that may occur. With a function, the name may be applied to arguments, and what comes of it
            is what that function, which belongs to this program, returns; with None it only marks something.
        persistent: turns a persistent id into a value; None when there must be none.

    Returns:
        The value, and the position behind the pickle.

    Raises:
        UserError: for anything that a state dict does not need, and for a damaged stream.
    """
    machine = _Machine(data, start, names, persistent)
    while not machine.step():
        if machine.spent > _MOST_STEPS:
            raise UserError(f'the pickle takes more than {_MOST_STEPS} steps; this is no state dict')
    return machine.result, machine.position


class _Machine:
    def __init__(self, data: bytes, start: int, names: dict[Global, Rebuild | None], persistent: Any):
        self.position, self.result, self.spent = start, None, 0
        self._data, self._names, self._persistent = data, names, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self) -> bool:
        """Executes one opcode; True after the last."""
        self.spent += 1
        code = self._take(1)
        if code == b'.':
            self.result = self._pop()
            return True
        action = _ACTIONS.get(code)
        if action is None:
            raise UserError(f'the pickle uses opcode {code!r}, which no state dict needs; nothing of it is executed')
        action(self)
        return False

    # The stream.

    def _take(self, count: int) -> bytes:
        piece = self._data[self.position : self.position + count]
        if len(piece) < count:
            raise damaged('the pickle ends early')
        self.position += count
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack('<' + form, self._take(struct.calcsize('<' + form)))[0]

    def _line(self) -> str:
        end = self._data.find(b'\n', self.position, self.position + 1000)
        if end < 0:
            raise damaged('a name in the pickle does not end')
        return self._text(self._take(end + 1 - self.position)[:-1])

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode('utf-8')
        except UnicodeDecodeError as error:
            raise damaged('a text in the pickle is not UTF-8') from error

    # The stack.

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise damaged('the pickle takes more than it has')
        return self._stack.pop()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _since_mark(self) -> list[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise damaged('the pickle takes more than it has')

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise damaged('the pickle fills what is no container')
        return self._stack[-1]

    # The opcodes.

    def protocol(self) -> None:
        self._number('B')

    def frame(self) -> None:
        self._number('Q')

    def mark(self) -> None:
        self._push(_MARK)

    def push(self, value: Any) -> None:
        self._push(value)

    def number(self, form: str) -> None:
        self._push(self._number(form))

    def real(self) -> None:
        self._push(struct.unpack('>d', self._take(8))[0])

    def long(self) -> None:
        self._push(int.from_bytes(self._take(self._number('B')), 'little', signed=True))

    def text(self, form: str) -> None:
        self._push(self._text(self._take(self._number(form))))

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def tuple_since_mark(self) -> None:
        self._push(tuple(self._since_mark()))

    def put(self, form: str) -> None:
        index = self._number(form)
        value = self._pop()
        self._push(value)
        self._memo[index] = value

    def memoise(self) -> None:
        value = self._pop()
        self._push(value)
        self._memo[len(self._memo)] = value

    def get(self, form: str) -> None:
        index = self._number(form)
        if index not in self._memo:
            raise damaged('the pickle refers to what it did not say')
        self._push(self._memo[index])

    def append(self) -> None:
        item = self._pop()
        self._top(list).append(item)

    def extend(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._store([key, value])

    def set_items(self) -> None:
        self._store(self._since_mark())

    def _store(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise damaged('a key without a value in the pickle')
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise UserError('the pickle holds a dict whose keys are not texts; this is no state dict')
            if key in target:
                raise UserError(f'{shown(str(key))} is there twice')
            target[key] = value

    def name(self) -> None:
        self._known(Global(self._line(), self._line()))

    def stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise damaged('a name in the pickle is no text')
        self._known(Global(module, name))

    def _known(self, name: Global) -> None:
        if name not in self._names:
            raise UserError(
                f'the file asks for the code {name}, and no code of a file is ever run; '
                'it may hold a whole pickled model: save its state_dict() alone'
            )
        self._push(name)

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        rebuild = self._names.get(name) if isinstance(name, Global) else None
        if rebuild is None or not isinstance(arguments, tuple):
            raise UserError('the pickle calls what may not be called; nothing of it is executed')
        # A list is read once and can be given to any number of calls: each pays for what it goes through.
        self.spent += sum(len(argument) for argument in arguments if isinstance(argument, (list, tuple, dict)))
        self._push(rebuild(arguments) if self.spent <= _MOST_STEPS else None)

    def build(self) -> None:
        # PyTorch hangs version numbers on its OrderedDicts; they are of no use here.
        self._pop()
        self._top(dict)

    def persistent_id(self) -> None:
        if self._persistent is None:
            raise damaged('a reference where there must be none')
        self._push(self._persistent(self._pop()))


def _with(method: Callable[..., None], *arguments: Any) -> Callable[[_Machine], None]:
    return lambda machine: method(machine, *arguments)


_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b'\x80': _Machine.protocol,
    b'\x95': _Machine.frame,
    b'(': _Machine.mark,
    b'N': _with(_Machine.push, None),
    b'\x88': _with(_Machine.push, True),
    b'\x89': _with(_Machine.push, False),
    b')': _with(_Machine.push, ()),
    b']': lambda machine: machine.push([]),
    b'}': lambda machine: machine.push({}),
    b'J': _with(_Machine.number, 'i'),
    b'K': _with(_Machine.number, 'B'),
    b'M': _with(_Machine.number, 'H'),
    b'G': _Machine.real,
    b'\x8a': _Machine.long,
    b'U': _with(_Machine.text, 'B'),
    b'T': _with(_Machine.text, 'I'),
    b'X': _with(_Machine.text, 'I'),
    b'\x8c': _with(_Machine.text, 'B'),
    b'\x85': _with(_Machine.tuple_of, 1),
    b'\x86': _with(_Machine.tuple_of, 2),
    b'\x87': _with(_Machine.tuple_of, 3),
    b't': _Machine.tuple_since_mark,
    b'q': _with(_Machine.put, 'B'),
    b'r': _with(_Machine.put, 'I'),
    b'\x94': _Machine.memoise,
    b'h': _with(_Machine.get, 'B'),
    b'j': _with(_Machine.get, 'I'),
    b'a': _Machine.append,
    b'e': _Machine.extend,
    b's': _Machine.set_item,
    b'u': _Machine.set_items,
    b'c': _Machine.name,
    b'\x93': _Machine.stack_name,
    b'R': _Machine.reduce,
    b'b': _Machine.build,
    b'Q': _Machine.persistent_id,
}
