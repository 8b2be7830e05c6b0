"""The plan: parameters and FLOPs that can be looked up, and every fold with its counts."""

import dataclasses

import numpy as np
import pytest

from configs import base
from fn2en_jax import plan
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.stages import Stages
from tests import faces

EXAMPLES = faces.make(28, size=256, classes=7)
FOLD = Fold('fold0', np.arange(21), np.arange(21, 28))
VGG16 = 138_357_544 - 993 * 4097  # the published net with 7 classes instead of 1000


@pytest.fixture(scope='module')
def paper():
    """The stages of the paper's full-size settings; shapes only, nothing is computed."""
    config = base.get_config('fn2en')
    stages = Stages(config, Data(EXAMPLES, faces.make(12, size=256, classes=4), ''), FOLD)
    return {name: stages.build(name) for name in stages.names()}


def test_the_full_size_face_net_is_vgg16(paper):
    cost = plan.estimate(paper['finetune'], (224, 224, 3))
    assert cost.params == VGG16
    images = 64 * paper['finetune'].last_step
    assert cost.flops / images / 3 == pytest.approx(2 * 15.47e9, rel=0.01)  # the published 15.5 G multiply-adds
    assert cost.bytes > 4 * 3 * VGG16  # parameters, gradients, momentum


def test_stage_1_counts_the_student_and_its_teacher_once(paper):
    first, second = (plan.estimate(paper[name], (224, 224, 3)) for name in ('stage1', 'stage2'))
    features = 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 512) + 64 + 128 + 256 + 512 + 512
    bridge = 512 * 512 + 512
    assert first.params == features + bridge
    head = 7 * 7 * 512 * 256 + 256 + 256 * 7 + 7
    assert second.params == features + bridge + head
    per_image = first.flops / (64 * paper['stage1'].last_step)
    assert per_image > 2 * 15.4e9
    assert first.bytes > 4 * VGG16


def test_the_parameter_table_adds_up(paper):
    lines = plan.parameter_table(paper['stage2']).splitlines()
    sizes = [int(line.split()[-1].replace(',', '')) for line in lines]
    assert sum(sizes[:-1]) == sizes[-1]
    (line,) = (line for line in lines if line.startswith('features/conv1/kernel'))
    assert line.split()[1:] == ['3x3x3x64', '1,728']


def test_the_description_names_folds_classes_and_stages(paper):
    costs = {name: plan.estimate(stage, (224, 224, 3)) for name, stage in paper.items()}
    text = plan.describe(list(paper.values()), costs, [FOLD], EXAMPLES)
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith('28 labelled images, 7 classes, 4 persons; 4 x ')
    assert ['fold0', 'train', '21', *['3'] * 7] in lines
    assert ['test', '7', *['1'] * 7] in lines
    (row,) = (line for line in lines if line[:1] == ['finetune'])
    assert row[1:5] == ['21', '64', '50', f'{VGG16:,}']


@pytest.mark.parametrize(
    ('subjects', 'told'),
    [
        (('a', 'b', 'a'), '2 persons'),
        (('a', '', ''), '1 persons and 2 images of unknown ones'),
        (('', '', ''), 'persons unknown'),
        (None, 'persons unknown'),
    ],
)
def test_who_is_shown(subjects, told):
    assert plan._subjects(dataclasses.replace(faces.make(3), subjects=subjects)) == told
