"""What makes a workdir refuse a run, beside its config."""

from configs import base
from fn2en_jax import experiment
from fn2en_jax.data.sources import Data
from tests import faces


def test_the_bytes_of_the_weights_are_part_of_a_run(tmp_path):
    path = tmp_path / 'face.safetensors'
    data = Data(faces.make(6), None, {'expressions': 'a', 'identities': ''})

    def mark(method: str) -> dict[str, str]:
        config = base.get_config(method)
        config.face_net.weights = str(path)
        return experiment._fingerprint(config, data)

    path.write_bytes(b'1')
    first = mark('fn2en')
    assert {**first, 'face_net_weights': ''} == {'expressions': 'a', 'identities': '', 'face_net_weights': ''}
    path.write_bytes(b'2')
    assert mark('fn2en') != first
    assert mark('scratch')['face_net_weights'] == ''  # which reads no weights
