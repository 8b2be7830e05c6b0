"""Side files: what is read, and that nothing harmful in them has an effect."""

import pytest

from fn2en_jax.data import side_files
from fn2en_jax.errors import UserError

BOMB = '<!DOCTYPE a [<!ENTITY b "0123456789"><!ENTITY c "&b;&b;&b;">]><a Value="&c;"/>'


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / 'file'
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_numbers_in_scientific_notation_with_blanks_and_line_ends(file):
    assert side_files.numbers(file('\ufeff   3.0000000e+00\r\n -1.5\t7\n')) == [3.0, -1.5, 7.0]


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('3.0 anger', 'something else'),
        (b'\xff\xfe', 'something else'),
        ('nan', 'finite'),
        ('1e999', 'finite'),
        ('1 ' * 40_000, 'larger'),
    ],
)
def test_what_is_no_numbers_is_refused(file, content, reason):
    with pytest.raises(UserError, match=reason):
        side_files.numbers(file(content))


def test_elements_in_document_order_without_prefixes(file):
    xml = '<?xml version="1.0"?><!DOCTYPE s SYSTEM "s.dtd"><s xmlns:m="m"><m:t a="1"><u b="&lt;"/></m:t><t/></s>'
    found = side_files.elements(file(xml))
    assert [element.tag for element in found] == ['s', 't', 'u', 't']
    assert found[1].attributes == {'a': '1'}
    assert found[2].attributes == {'b': '<'}


@pytest.mark.parametrize(
    'content',
    [
        b'<?xml version="1.0" encoding="utf-16"?><a b="1"/>',  # declared wrongly, as .NET writes it
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-16"?><a b="1"/>',
        '<?xml version="1.0" encoding="utf-16"?><a b="1"/>'.encode('utf-16'),
        b'<?xml version="1.0" encoding="utf-8"?><a b="1" c="\xe9"/>',
        b'<?xml version="1.0" encoding="no-such-encoding"?><a b="1"/>',
    ],
)
def test_a_wrong_encoding_does_not_matter(file, content):
    (element,) = side_files.elements(file(content))
    assert element.attributes['b'] == '1'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_entities_are_refused(file, encoding):
    with pytest.raises(UserError, match='entities'):
        side_files.elements(file(BOMB.encode(encoding)))


def test_external_entities_are_not_read(file, tmp_path):
    (tmp_path / 'secret').write_text('secret')
    with pytest.raises(UserError, match='entities'):
        side_files.elements(file(f'<!DOCTYPE a [<!ENTITY s SYSTEM "{tmp_path}/secret">]><a>&s;</a>'))


@pytest.mark.parametrize(
    ('content', 'reason'), [('', 'no XML'), ('<a>', 'no XML'), ('{"a": 1}', 'no XML'), ('<a/>' * 270_000, 'larger')]
)
def test_what_is_no_xml_is_refused(file, content, reason):
    with pytest.raises(UserError, match=reason):
        side_files.elements(file(content))


def test_lines_are_stripped_and_never_fail_to_decode(file):
    assert side_files.lines(file(b'\xef\xbb\xbf a,1 \r\n\r\nb\xff')) == ['a,1', '', 'b�']


def test_a_file_that_is_gone_is_a_refusal(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        side_files.lines(tmp_path / 'none')
