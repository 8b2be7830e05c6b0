"""What a result says it was made with."""

import re

from fn2en_jax import machine


def test_the_hardware_names_the_processor_its_cores_and_the_memory(tmp_path):
    told = machine.versions()['hardware']
    assert re.fullmatch(r'[0-9]+ x .+ \(cpu\), .+, [0-9]+ cores(, [0-9]+\.[0-9] GiB of memory)?', told), told
    (tmp_path / 'cpuinfo').write_text('processor\t: 0\nmodel name\t: Fast CPU @ 2.00GHz\nmodel name\t: other\n')
    assert machine.processor(tmp_path / 'cpuinfo') == 'Fast CPU @ 2.00GHz'
    assert machine.processor(tmp_path / 'none')  # whatever Python knows
