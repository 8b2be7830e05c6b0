"""Linear probes of the nets of a finished run: what is read from every layer, as numbers, a table and a plot."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fn2en_jax import panels, probe, report
from fn2en_jax.activations import Pixels, flat
from fn2en_jax.data.examples import Examples
from fn2en_jax.exhibits import Picture
from fn2en_jax.finished import TITLES, Finished, Net


def probes(run: Finished, nets: Mapping[str, Net], note: Callable[[str], None]) -> dict[str, Any]:
    """How well linear probes read expression and identity from every layer, on the test persons.

    Args:
        run: opened again.
        nets: to probe, by key.
        note: is told why something cannot be probed.

    Returns:
        JSON values: 'tasks' by name (classes, persons, images, chance), 'accuracy' by task, net ('pixels' for the image
        itself) and layer {'mean', 'std', 'repeats'}, 'protocol' in words.
    """
    test, show, seed = run.test, run.config.visualize, run.config.seed
    tasks = _tasks(test, note)
    if not tasks:
        return {}
    progress = report.Progress('linear probes', 0, sum(len(net.probed) for net in nets.values()) + 1, unit='layer')
    accuracy: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in tasks}
    done = 0
    for key, features in _features(run, nets, show.probe.grid):
        for layer, values in features.items():
            for name, task in tasks.items():
                scores = probe.accuracy(
                    values, task, repeats=show.probe.repeats, components=show.probe.components, seed=seed
                )
                spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
                found = {'mean': float(scores.mean()), 'std': spread, 'repeats': scores.tolist()}
                accuracy[name].setdefault(key, {})[layer] = found
            done += 1
            progress.update(done, {})
    progress.close()
    facts = {
        name: {'classes': len(task.names), 'images': len(task.images), 'chance': task.chance, **_persons(test, task)}
        for name, task in tasks.items()
    }
    return {'tasks': facts, 'accuracy': accuracy, 'protocol': _protocol(test, show)}


def _features(run: Finished, nets: Mapping[str, Net], grid: int) -> Iterable[tuple[str, dict[str, np.ndarray]]]:
    """('pixels', ...), then every net's layers as [N,F]; one net's at a time."""
    side = min(run.config.data.crop_size, 24)
    yield 'pixels', flat(run.outputs(Pixels(side), {}, run.test), ('pixels',))
    for key, net in nets.items():
        yield key, flat(net.activations(run, run.test, net.probed, grid), net.probed)


def _tasks(test: Examples, note: Callable[[str], None]) -> dict[str, probe.Task]:
    if not len(test):
        note('no image was left to test on (config.fold=none), so there is nothing to probe')
        return {}
    tasks = {
        'expression': probe.expression_task(test.labels, test.class_names, test.subjects, test.sequences),
        'identity': probe.identity_task(test.subjects, test.sequences, len(test)),
    }
    if tasks['expression'] is None:
        note('the test images show fewer than two expressions of two persons each: expression cannot be probed')
    if test.subjects is None:
        note('the set does not say who is shown: identity cannot be probed')
    elif tasks['identity'] is None:
        note('fewer than two test persons have two images or sequences: identity cannot be probed')
    return {name: task for name, task in tasks.items() if task is not None}


def _persons(test: Examples, task: probe.Task) -> dict[str, int]:
    return {} if test.subjects is None else {'persons': len({test.subjects[i] for i in task.images})}


def _protocol(test: Examples, show: Any) -> str:
    units = 'sequences' if test.sequences is not None else 'images'
    who = 'persons' if test.subjects is not None else units
    left_out = ' Images of unknown persons are left out.' if test.subjects and '' in test.subjects else ''
    return (
        f'Test images only: no net saw them in training, nor their persons where these are named.{left_out} '
        f'Expression: the probe learns on one half of the {who} and is tested on the other half, and the other way '
        f'round; identity: it learns on half of the {units} of every person and is tested on the other half, and the '
        f'other way round. Maps are averaged over {show.probe.grid} x {show.probe.grid} regions; features are '
        f'standardised and reduced to at most {show.probe.components} principal components; the probe is a ridge '
        f'classifier with balanced classes, its strength chosen inside the training half. Mean and standard deviation '
        f'over {show.probe.repeats} dealings into halves, which does not contain the chance in who was photographed.'
    )


def picture(found: Mapping[str, Any]) -> Picture:
    """The plot of what `probes` returned."""
    shown, titles, places = {}, {'pixels': 'the image itself', **TITLES}, _places(found['accuracy'])
    for task, nets in found['accuracy'].items():
        shown[task] = {
            net: {layer: (value['mean'], value['std']) for layer, value in layers.items()}
            for net, layers in nets.items()
        }
    chances = {task: facts['chance'] for task, facts in found['tasks'].items()}
    draw = functools.partial(panels.probe, shown, chances, titles, places)
    last = '; '.join(
        f'{task}: '
        + ', '.join(f'{titles[net]} {100 * list(layers.values())[-1][0]:.1f} %' for net, layers in nets.items())
        for task, nets in shown.items()
    )
    caption = (
        f'{found["protocol"]} Chance: ' + ', '.join(f'{task} {100 * c:.1f} %' for task, c in chances.items()) + '.'
    )
    return Picture(
        'probe.png', 'What a linear probe reads', caption, f'Accuracy by layer. At the last layer, {last}.', False, draw
    )


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A table of what `probes` returned: a row per net and layer, with a heading."""
    tasks = list(found['accuracy'])
    table = [['net', 'layer', *(f'{task}{part}' for task in tasks for part in (' %', ' ±'))]]
    for net, layers in found['accuracy'][tasks[0]].items():
        for layer in layers:
            values = [found['accuracy'][task][net][layer] for task in tasks]
            table.append([net, layer, *(f'{100 * value[part]:.1f}' for value in values for part in ('mean', 'std'))])
    chances = [found['tasks'][task]['chance'] for task in tasks]
    return [*table, ['chance', '', *(text for chance in chances for text in (f'{100 * chance:.1f}', ''))]]


def _places(accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, int]:
    """Where layers stand on an axis: pools of all nets together, then the last layers, counted from the end."""
    nets = next(iter(accuracy.values()))
    pools = max(int(layer[4:]) for layers in nets.values() for layer in layers if layer.startswith('pool'))
    places = {'pixels': 0, **{f'pool{n}': n for n in range(1, pools + 1)}}
    ends = {'features': 1, 'fc6': 1, 'hidden': 2, 'fc7': 2}
    there = {layer for layers in nets.values() for layer in layers}
    return places | {layer: pools + place for layer, place in ends.items() if layer in there}
