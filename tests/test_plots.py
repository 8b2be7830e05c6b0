"""Plots: PNGs that show the numbers they are given."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fn2en_jax import panels, plots


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    figures = []
    save = plots._save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, '_save', keep)
    return figures


def row(stage: str, step: int, fold: str = 'fold0', **values: float) -> dict:
    return {'fold': fold, 'stage': stage, 'step': step, 'epoch': step / 10, **values}


ROWS = [
    *(row('stage1', step, loss=100 / step, **({'test_loss': 50.0} if step == 20 else {})) for step in (10, 20)),
    *(
        row('stage2', step, fold, loss=1.0, accuracy=step / 40, test_accuracy=0.5)
        for fold in ('fold0', 'fold1')
        for step in (10, 20)
    ),
]


def test_learning_curves_have_a_panel_per_stage_and_a_line_per_fold(drawn, tmp_path):
    plots.learning_curves(ROWS, tmp_path / 'curves.png')
    first, second = drawn[0].axes
    assert (first.get_title('left'), second.get_title('left')) == ('stage1', 'stage2')
    lines = [line.get_xydata().tolist() for line in first.lines if len(line.get_xydata())]
    assert lines == [[[1.0, 10.0], [2.0, 5.0]], [[2.0, 50.0]]]
    assert first.get_yscale() == 'log'
    lines = [line.get_xydata().tolist() for line in second.lines if len(line.get_xydata())]
    assert lines == 2 * [[[1.0, 0.25], [2.0, 0.5]], [[1.0, 0.5], [2.0, 0.5]]]
    assert second.get_ylim()[0] == 0
    with Image.open(tmp_path / 'curves.png') as image:
        assert image.format == 'PNG'
        assert np.asarray(image.convert('L')).std() > 5


def test_more_stages_than_columns_leave_no_empty_panel(drawn, tmp_path):
    plots.learning_curves([row(f'stage{i}', 10, loss=1.0) for i in range(5)], tmp_path / 'curves.png')
    assert len(drawn[0].axes) == 5


def test_no_rows_make_no_picture_and_no_trouble(tmp_path):
    plots.learning_curves([], tmp_path / 'curves.png')


def test_the_confusion_matrix_shows_counts_and_shades_shares(drawn, tmp_path):
    plots.confusion_matrix([[3, 1], [0, 0]], ('anger', 'joy'), 'FN2EN', tmp_path / 'confusion.png')
    axis = drawn[0].axes[0]
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in axis.texts}
    assert cells == {(0, 0): '3', (1, 0): '1', (0, 1): '0', (1, 1): '0'}  # (column, row)
    np.testing.assert_array_equal(axis.images[0].get_array(), [[0.75, 0.25], [0.0, 0.0]])
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ['anger', 'joy']
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('predicted', 'true')
    assert isinstance(drawn[0].canvas, FigureCanvasAgg)
    with Image.open(tmp_path / 'confusion.png') as image:
        assert image.format == 'PNG'


@pytest.mark.parametrize('name', ['$x^$', r'$\frac$', 'a $ b $'])
def test_dollar_signs_in_names_are_drawn_as_they_stand(drawn, name, tmp_path):
    plots.confusion_matrix([[3, 1], [0, 0]], (name, 'joy'), name, tmp_path / 'confusion.png')
    assert not any(text.get_parse_math() for text in drawn[0].axes[0].get_xticklabels())
    plots.learning_curves([row(name, 10, loss=1.0), row(name, 20, loss=2.0)], tmp_path / 'curves.png')
    image = np.full((8, 8, 3), 90, np.uint8)
    rows = [panels.Row(name, [image, image])]
    panels.columns_of_rows({name: rows}, tmp_path / 'rows.png', headings=[name])
    panels.grid([[image]], tmp_path / 'grid.png', rows=[name], columns=[name], notes=[[(name, 'black')]])
    panels.responses({name: np.eye(3)}, np.ones(3), tmp_path / 'responses.png')
    assert len(list(tmp_path.glob('*.png'))) == 5
