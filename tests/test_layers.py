"""The house rules: arrows one way, one file about devices, no file without a subject."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'fn2en_jax'
FACADE = PACKAGE / '__init__.py'  # hands on names of all layers, when asked
FILES = sorted(
    path for path in PACKAGE.rglob('*.py') if (path.name != '__init__.py' or path.stat().st_size) and path != FACADE
)

# A module may import modules of lower layers and of its own folder.
LAYERS = {
    0: ('types', 'errors', 'rng', 'trees', 'workdir', 'commands', 'spreadsheet', 'machine'),
    1: ('losses', 'metrics', 'optim', 'prediction_table', 'models', 'weights', 'data'),
    2: ('methods',),
    3: (
        *('parallel', 'checkpoint', 'report', 'plots', 'results', 'literature', 'embedded', 'page', 'onnx_graph'),
        'table_formats',
        *('predictions', 'activations', 'neurons', 'ascent', 'saliency', 'probe', 'panels'),
    ),
    4: ('engine', 'config_checks', 'annotation', 'cuts'),
    5: ('stages', 'plan', 'net_settings', 'face_batches'),
    6: ('experiment', 'trained'),
    7: ('portable', 'stablehlo', 'trial_faces', 'predictor', 'finished', 'exhibits', 'probing'),
    8: (
        *('evaluate', 'compare', 'convert', 'export', 'datasets', 'report_table', 'report_page', 'layer_sweep'),
        *('predict', 'visualize'),
    ),
}
# Of one layer, and still in an order of their own.
ALLOWED = {
    ('rng', 'types'),
    ('trees', 'types'),
    ('trees', 'errors'),
    ('commands', 'errors'),
    ('workdir', 'errors'),
    ('data', 'weights'),  # for its reader of MATLAB files
    ('plan', 'stages'),
    ('stablehlo', 'portable'),
    ('literature', 'results'),
    *(('page', name) for name in ('embedded', 'literature', 'plots', 'report', 'results')),
    ('predictor', 'portable'),
    ('panels', 'plots'),
    ('exhibits', 'finished'),
    ('probing', 'finished'),
    ('probing', 'exhibits'),
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}


def module(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


def room(name: str) -> str:
    """'data' for fn2en_jax.data.builders.schema, 'engine' for fn2en_jax.engine."""
    return name.split('.')[1]


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: relative import'
            for alias in node.names:
                full = f'{node.module}.{alias.name}'
                place = ROOT / full.replace('.', '/')
                is_module = place.with_suffix('.py').exists() or place.is_dir()
                names.add(full if is_module else node.module)
    return names


def test_every_room_has_a_layer():
    assert {room(module(path)) for path in FILES} <= set(LAYER)


@pytest.mark.parametrize('path', FILES, ids=module)
def test_imports_go_down_only(path):
    here = room(module(path))
    for name in imports(path):
        if name.split('.')[0] != 'fn2en_jax' or name == 'fn2en_jax':
            continue
        there = room(name)
        down = LAYER[there] < LAYER[here] or there == here or (here, there) in ALLOWED
        assert down, f'{module(path)} (layer {LAYER[here]}) imports {name} (layer {LAYER[there]})'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=module)
def test_configs_import_nothing_but_configs(path):
    assert {name.split('.')[0] for name in imports(path)} <= {'ml_collections', 'configs'}


def code(path: Path) -> str:
    """The source without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def test_only_one_file_knows_about_devices():
    words = re.compile(r'\b(pmap|donate\w*|shard_map|NamedSharding|device_put)\b')
    found = {module(path) for path in FILES if words.search(code(path))}
    assert found == {'fn2en_jax.parallel'}


def test_config_dicts_are_read_in_few_places():
    found = {module(path) for path in FILES if 'ml_collections' in ' '.join(imports(path))}
    # The sweep and the pictures take a config from their flags, and set a few keys.
    tools = ('layer_sweep', 'visualize')
    readers = ('stages', 'config_checks', 'experiment', 'trained', 'portable', 'finished')
    assert found <= {f'fn2en_jax.{name}' for name in (*readers, *tools)}


def test_importing_the_package_is_free():
    code = 'import sys, fn2en_jax; print(sorted({"jax", "numpy", "cv2"} & set(sys.modules)))'
    found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == '[]\n'


def test_no_file_is_called_after_nothing():
    for path in FILES:
        assert not re.search(r'util|helper|misc|common', path.stem), path


WITHOUT_FOREIGN = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in sys.argv[1].split(','):
            raise ModuleNotFoundError(f'no module named {name}', name=name)

sys.meta_path.insert(0, Absent())
from absl import flags

for name in sys.argv[2:]:
    importlib.import_module(name)
    for flag in list(flags.FLAGS):  # every tool has flags of its own, and runs alone
        delattr(flags.FLAGS, flag)
print('all imported')
"""
FOREIGN = ('tensorflow', 'torch', 'keras')


def test_neither_tensorflow_nor_torch_is_imported_or_needed():
    for path in FILES:
        assert not {name.split('.')[0] for name in imports(path)} & set(FOREIGN), path
    command = [sys.executable, '-c', WITHOUT_FOREIGN, ','.join(FOREIGN), *map(module, FILES)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert result.stdout.endswith('all imported\n'), result.stderr
