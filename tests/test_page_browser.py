"""The page of a run in a real browser: on a phone and a desk, by day and by night, and on paper."""

from pathlib import Path

import pytest

from fn2en_jax import page
from tests import chromium, workdirs

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason='no Chromium is installed; looked for on PATH')

LOOKS = [(360, False), (360, True), (1280, False), (1280, True)]

# Every text on the page with less contrast than WCAG AA asks for: 4.5, and 3 where it is large.
CONTRAST = """
(() => {
  const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(k => a * top[k] + (1 - a) * under[k]);
  };
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = node => {
    const own = parse(getComputedStyle(node).backgroundColor);
    const opaque = own.length === 3 || own[3] === 1;
    if (opaque) return own.slice(0, 3);
    return over(own, node.parentElement ? ground(node.parentElement) : [255, 255, 255]);
  };
  const bad = [];
  let seen = 0;
  for (const details of document.querySelectorAll('details')) details.open = true;
  for (const node of document.body.querySelectorAll('*')) {
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())) continue;
    const style = getComputedStyle(node), under = ground(node), svg = node instanceof SVGElement;
    const ink = over(parse(svg ? style.fill : style.color), under);
    const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    seen += 1;
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (large ? 3 : 4.5)) bad.push([node.tagName, node.textContent.slice(0, 40), ratio]);
  }
  return {seen, bad};
})()
"""


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp('profile')) as tab:
        yield tab


@pytest.fixture(scope='module')
def report(tmp_path_factory) -> Path:
    folder = workdirs.write(tmp_path_factory.mktemp('browser') / 'work')
    workdirs.visualise(folder)
    return page.write(folder, workdirs.images())


@pytest.mark.parametrize(('width', 'dark'), LOOKS)
def test_it_renders_without_a_complaint_and_without_sideways_scrolling(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith('data:')] == [report.as_uri()]
    assert browser.value('[...document.images].every(image => image.naturalWidth > 0)')
    assert browser.value('document.images.length') > 30
    assert browser.value('matchMedia("(prefers-color-scheme: dark)").matches') is dark
    assert browser.value('document.documentElement.scrollWidth') == width
    assert browser.value('innerWidth') == width
    contrast = browser.value(CONTRAST)
    assert contrast['seen'] > 300
    assert contrast['bad'] == []
    # With everything unfolded, nothing but the tables in their own frames is wider than the window.
    assert browser.value('document.documentElement.scrollWidth') == width


def test_what_is_folded_on_the_screen_is_printed(browser, report, tmp_path):
    browser.open(report, width=794)
    # Asking for a height makes the new medium take effect first.
    seen = 'document.body.offsetHeight > 0 && document.querySelector(".config td").checkVisibility()'
    assert browser.value(seen) is False
    browser.call(
        'Emulation.setEmulatedMedia', media='print', features=[{'name': 'prefers-color-scheme', 'value': 'dark'}]
    )
    assert browser.value(seen) is True
    assert browser.value('getComputedStyle(document.body).color') == 'rgb(27, 32, 39)'  # ink on paper, also at night
    browser.pdf(tmp_path / 'page.pdf')
    assert (tmp_path / 'page.pdf').read_bytes().startswith(b'%PDF-')
    assert (tmp_path / 'page.pdf').stat().st_size > 50_000


@pytest.mark.parametrize(
    ('planted', 'complaint'),
    [
        ('<img src="missing.png" alt="x">', 'Content Security Policy'),
        ('<script>alert(1)</script>', 'Content Security Policy'),
        ('<link rel="stylesheet" href="https://example.org/x.css">', 'Content Security Policy'),
        ('<img src="data:image/png;base64,AAAA" alt="x">', None),
    ],
)
def test_what_is_planted_is_noticed(browser, report, tmp_path, planted, complaint):
    """The checks above can fail, and the page's policy holds."""
    broken = tmp_path / 'broken.html'
    broken.write_text(report.read_text().replace('<main>', f'<main>{planted}'))
    browser.open(broken, width=1280)
    if complaint:
        assert any(complaint in text for text in browser.complaints), browser.complaints
    else:
        assert not browser.value('[...document.images].every(image => image.naturalWidth > 0)')


@pytest.mark.parametrize(
    ('body', 'complaint'),
    [
        ('<img src="missing.png" alt="x">', 'ERR_FILE_NOT_FOUND'),
        ('<script>console.error("oh")</script>', 'oh'),
        ('<script>nothing()</script>', 'Uncaught'),
    ],
)
def test_errors_of_any_page_are_noticed(browser, tmp_path, body, complaint):
    (tmp_path / 'bad.html').write_text(f'<!DOCTYPE html><title>x</title>{body}')
    browser.open(tmp_path / 'bad.html', width=1280)
    assert any(complaint in text for text in browser.complaints), browser.complaints


def test_a_page_that_is_too_wide_or_too_pale_is_noticed(browser, report, tmp_path):
    broken = tmp_path / 'broken.html'
    broken.write_text(report.read_text().replace('<main>', '<main><p style="width: 500px; color: #999">pale</p>'))
    browser.open(broken, width=360)
    assert browser.value('document.documentElement.scrollWidth') > 360
    assert [text for _, text, _ in browser.value(CONTRAST)['bad']] == ['pale']
