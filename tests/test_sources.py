"""Opening a user's sets: what is warned of."""

from pathlib import Path

import numpy as np
from PIL import Image

from fn2en_jax.data import sources


def test_copies_within_a_set_and_between_the_two_are_warned_of(tmp_path: Path, caplog):
    draw = np.random.default_rng(0)
    for name in 'abcd':
        Image.fromarray(draw.integers(0, 256, (40, 36), np.uint8)).save(tmp_path / f'{name}.png')
    (tmp_path / 'again.png').write_bytes((tmp_path / 'a.png').read_bytes())
    (tmp_path / 'e.csv').write_text('file,expression\na.png,joy\nb.png,anger\nagain.png,joy\n')
    (tmp_path / 'i.csv').write_text('file,identity\nb.png,ann\nc.png,bob\nd.png,bob\n')
    reading = sources.Reading(str(tmp_path / 'data'), 32, 1, 1 << 30, {})
    for _ in range(2):  # also when the sets are stored already
        caplog.clear()
        with caplog.at_level('WARNING', logger='absl'):
            sources.open_data('csv', str(tmp_path / 'e.csv'), str(tmp_path / 'i.csv'), reading, need_identities=True)
        assert "e.csv: 1 images are byte for byte copies of others ('again.png' of 'a.png')" in caplog.text
        assert 'i.csv: ' not in caplog.text
        assert '1 images are in both sets' in caplog.text
