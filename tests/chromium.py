"""A headless Chromium, driven over its debugging pipe: what a page looks like, and what it complains of."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
    '--remote-debugging-pipe',
)
PATIENCE = 120  # seconds


class Browser:
    """One tab. `complaints` are console errors, failed loads and refusals of the page's own policy."""

    def __init__(self, reader: int, writer: int):
        self._reader, self._writer, self._rest, self._number = reader, writer, b'', 0
        self._session = ''
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a command of the DevTools protocol returns."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._writer, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer['error']
                return answer['result']
            self._note(answer)

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Loads a page anew, in a window of `width` CSS pixels, until it has loaded."""
        phone = width < 600
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=800,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.call('Emulation.setEmulatedMedia', media='', features=[scheme])
        self.complaints, self.requests, self._loaded = [], [], False
        self.call('Page.navigate', url=page.resolve().as_uri())
        while not self._loaded:
            self._note(self._receive())
        self.value('document.images.length')  # whatever was said until now has arrived

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page, as JSON."""
        return self.call('Runtime.evaluate', expression=expression, returnByValue=True)['result'].get('value')

    def screenshot(self, file: Path, *, clip: tuple[float, float, float, float] | None = None) -> None:
        """Writes the whole page, or x, y, width, height of it, as PNG."""
        size = self.call('Page.getLayoutMetrics')['cssContentSize']
        x, y, width, height = clip or (0, 0, size['width'], size['height'])
        area = {'x': x, 'y': y, 'width': width, 'height': height, 'scale': 1}
        data = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True, clip=area)['data']
        file.write_bytes(base64.b64decode(data))

    def pdf(self, file: Path) -> None:
        """Prints the page on A4."""
        found = self.call('Page.printToPDF', paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        file.write_bytes(base64.b64decode(found['data']))

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get('method'), message.get('params', {})
        if method == 'Page.loadEventFired':
            self._loaded = True
        elif method == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.complaints.append(params['entry']['text'])
        elif method == 'Runtime.exceptionThrown':
            self.complaints.append(params['exceptionDetails']['text'])
        elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert'):
            self.complaints.append(str(params['args']))
        elif method == 'Network.loadingFailed':
            self.complaints.append(params['errorText'])

    def _receive(self) -> dict[str, Any]:
        while b'\0' not in self._rest:
            data = os.read(self._reader, 1 << 16)
            assert data, 'Chromium has ended'
            self._rest += data
        message, _, self._rest = self._rest.partition(b'\0')
        return json.loads(message)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Starts Chromium with a profile of its own in `folder`, and ends it."""
    assert PROGRAM, 'no Chromium is installed'
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    # The pipe is on the descriptors 3 and 4, as --remote-debugging-pipe wants it.
    shell = ['bash', '-c', f'exec "$@" 3<&{to_read} 4>&{to_write}', 'bash']
    command = [*shell, PROGRAM, *FLAGS, f'--user-data-dir={folder}', 'about:blank']
    with (folder / 'chromium.log').open('w') as log:
        process = subprocess.Popen(command, pass_fds=(to_read, to_write), stdout=log, stderr=log)
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(read, write)
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(read)
        os.close(write)
        _until_gone(folder)


def _until_gone(folder: Path) -> None:
    """Its helpers write into the profile for a moment longer than it lives."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            time.sleep(0.1)
