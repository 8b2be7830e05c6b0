"""The pictures that `visualize` makes of a finished run, each with the words that go with it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import ascent, neurons, panels, rng, saliency, stages
from fn2en_jax.activations import WHOLE, flat
from fn2en_jax.data.augmentation import centre_crop
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError
from fn2en_jax.finished import SHORT, TITLES, Finished, Net
from fn2en_jax.methods.base import NetState
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.models.expression_net import MEAN_GREY
from fn2en_jax.models.vgg_face import MEAN_RGB
from fn2en_jax.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True)
class Picture:
    """One PNG and what a page needs to show it.

    Attributes:
        file: its name.
        title, caption: for everybody.
        alt: what is seen, for those who do not see it.
        shows_data: whether images of the data set can be recognised in it.
        draw: writes the PNG to a path.
    """

    file: str
    title: str
    caption: str
    alt: str
    shows_data: bool
    draw: Callable[[Path], None]


CAM_BATCH = 32
_grad_cam = jax.jit(saliency.grad_cam, static_argnums=0, static_argnames=('layer', 'output', 'mirror'))


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """The k-th image's logit of class k: what gradient ascent climbs. Hashable, so that it can be compiled for."""

    model: nn.Module
    output: str

    def __call__(self, variables: PyTree, images: Array) -> Array:
        """[K] of images [K,H,W,C]."""
        found: Any = self.model.apply(variables, images)
        return jnp.diagonal(found[self.output])


class Exhibits:
    """All pictures of one finished run.

    Args:
        run: opened again.
        nets: all of its nets, by key.
        shown: those to show side by side.
        named: per layer, indices of neurons to show; {} picks one per class.
        with_faces: whether images of the data set may be shown.
    """

    def __init__(
        self,
        run: Finished,
        nets: Mapping[str, Net],
        shown: Sequence[str],
        named: Mapping[str, Sequence[int]],
        with_faces: bool,
    ):
        self._run, self._all, self._named, self._with_faces = run, nets, named, with_faces
        self._nets = {key: nets[key] for key in shown}
        self._visualize = run.config.visualize
        self._tested = len(run.fold.test) > 0
        self._examples = run.test if self._tested else run.data.expressions
        self._names = run.data.expressions.class_names
        self._which = 'test images' if self._tested else 'images, which the nets were trained on,'

    # Neurons.

    def hidden_neurons(self) -> Iterable[Picture]:
        """The images that excite chosen hidden neurons most, and how selective all of them are."""
        layers = {key: self._hidden_layers(net) for key, net in self._nets.items()}
        if self._with_faces:
            found = {
                key: flat(net.activations(self._run, self._examples, layers[key], WHOLE), layers[key])
                for key, net in self._nets.items()
            }
            yield self._excited({key: self._neuron_rows(self._nets[key], found[key]) for key in found})
        known = self._examples.known_subjects
        named = self._examples if known.all() else self._examples.take(np.flatnonzero(known))
        persons = len(set(named.subjects or ()))
        if 1 < persons < len(named) and len(np.unique(named.labels)) > 1:
            yield self._selectivity(named)

    def _hidden_layers(self, net: Net) -> tuple[str, ...]:
        shapes = net.shapes
        every = {name: shape for other in self._nets.values() for name, shape in other.shapes.items()}
        if unknown := self._named.keys() - every.keys():
            known = sorted(name for name, shape in every.items() if len(shape) == 2)
            raise UserError(f'--neurons names the layer {", ".join(sorted(unknown))}; there are {", ".join(known)}')
        own = {name: indices for name, indices in self._named.items() if name in shapes}
        for name, indices in own.items():
            if len(shapes[name]) != 2:
                raise UserError(
                    f'--neurons names {name}, which is a map; choose a layer of units, such as {net.hidden}'
                )
            if max(indices) >= shapes[name][1]:
                raise UserError(f'--neurons: {name} of {SHORT[net.key]} has the neurons 0 to {shapes[name][1] - 1}')
        return tuple(dict.fromkeys((net.hidden, *own)))

    def _neuron_rows(self, net: Net, found: Mapping[str, np.ndarray]) -> list[panels.Row]:
        labels, classes = self._examples.labels, len(self._names)
        own = {name: indices for name, indices in self._named.items() if name in found}
        if not own:
            chosen = neurons.most_selective(net.hidden, found[net.hidden], labels, classes)
        else:
            means = {name: neurons.class_means(found[name], labels, classes) for name in own}
            chosen = [
                neurons.Chosen(name, index, int(means[name][:, index].argmax()))
                for name, indices in own.items()
                for index in indices
            ]
        return [self._neuron_row(choice, found[choice.layer][:, choice.index]) for choice in chosen]

    def _neuron_row(self, choice: neurons.Chosen, activation: np.ndarray) -> panels.Row:
        count = max(self._visualize.mean_images, self._visualize.top_images)
        best = neurons.most_exciting(activation, count)
        images = self._crops(best)
        top = best[: self._visualize.top_images]
        label = [f'{choice.layer} {choice.index}', self._names[choice.preferred]]
        if self._examples.subjects and all(self._examples.subjects[i] for i in top):
            people = len({self._examples.subjects[i] for i in top})
            label.append(f'{people} person{"s" * (people != 1)} in {len(top)}')
        mean = images[: self._visualize.mean_images].mean(0)
        return panels.Row('\n'.join(label), [mean, panels.difference(mean, self._mean_image), *images[: len(top)]])

    def _excited(self, rows: Mapping[str, Sequence[panels.Row]]) -> Picture:
        top, mean = (
            min(count, len(self._examples)) for count in (self._visualize.top_images, self._visualize.mean_images)
        )
        blocks = {TITLES[key]: part for key, part in rows.items() if part}
        how = (
            'The neurons were named by hand.'
            if self._named
            else 'Of the last hidden layer (fc7 of the face net, fc1, called hidden, of the expression net) one neuron '
            'for every expression: of those that it excites most on average, the one whose variance the expressions '
            'explain best.'
        )
        caption = (
            f'Hidden neurons, each with the expression that excites it most on average: the mean of the {mean} '
            f'{self._which} that excite it most, how its brightness differs from that of the mean of all images '
            f'(enhanced), and the strongest {top} of them. {how}'
        )
        alt = 'Rows of face images, one row per neuron. ' + '; '.join(
            f'{TITLES[key]}: ' + ', '.join(row.label.replace('\n', ' ') for row in part) for key, part in rows.items()
        )
        headings = ('mean', '− all', *map(str, range(1, top + 1)))
        draw = functools.partial(panels.columns_of_rows, blocks, headings=headings)
        return Picture('neurons.png', 'What excites hidden neurons', caption, f'{alt}.', True, draw)

    def _selectivity(self, named: Examples) -> Picture:
        """named: images of known persons."""
        people = np.unique(np.array(named.subjects), return_inverse=True)[1]
        which = self._which if len(named) == len(self._examples) else f'those {self._which} whose person is known'
        shares = {}
        for key, net in self._all.items():
            values = net.activations(self._run, named, (net.hidden,), WHOLE)[net.hidden]
            values = values[:, values.std(0) > 0]
            if values.shape[1]:
                by_expression = neurons.explained(values, named.labels)
                shares[key] = neurons.explained(values, people), by_expression
        medians = ', '.join(
            f'{TITLES[key]} ({self._all[key].hidden}, {len(person)} neurons that fire): '
            f'person {np.median(person):.2f}, expression {np.median(expression):.2f}'
            for key, (person, expression) in shares.items()
        )
        caption = (
            f'Every neuron of the last hidden layer by the share of its variance over {which} that knowing the '
            f'person explains, and that knowing the expression explains (epsilon squared: 0 for groups that say '
            f'nothing). The cross is the median: {medians}.'
        )
        titles = {key: TITLES[key] for key in shares}
        alt = f'Scatter plots, a panel per net. Medians: {medians}.'
        draw = functools.partial(panels.selectivity, shares, titles)
        return Picture('selectivity.png', 'Persons or expressions?', caption, alt, False, draw)

    # Class neurons.

    def class_neurons(self) -> Iterable[Picture]:
        """For every class neuron the input that maximises it."""
        spec, seed = stages.ascent(self._run.config), self._run.config.seed
        key = rng.stream(seed, 'visualize')
        images: list[Sequence[np.ndarray]] = []
        notes = []
        for net in self._nets.values():
            colour = jnp.asarray(MEAN_RGB if net.channels == 3 else (MEAN_GREY,), jnp.float32)
            begin = ascent.start(spec, rng.named(key, 'start'), colour, len(self._names), net.side)
            scores = ClassScores(net.model, net.output)
            found = ascent.maximise(spec, scores, net.variables, begin, colour, rng.named(key, 'moves'))
            images.append(list(np.asarray(found)))
            sure = self._certainty(net, found)
            notes.append([(f'p = {value:.2f}', panels.INK) for value in sure])
        rows = [TITLES[key].replace(' (', '\n(').replace('VGG ', 'VGG\n') for key in self._nets]
        caption = (
            f'The input that maximises each class neuron, found by {spec.steps} steps of gradient ascent from noise, '
            f'with jitter, blur and decay. No image of the data set went into it. p is the probability that the net '
            f'itself gives the picture.'
        )
        shown = ', '.join(TITLES[key] for key in self._nets)
        alt = f'A row of pictures per net ({shown}), one for each of the classes {", ".join(self._names)}.'
        draw = functools.partial(panels.grid, images, rows=rows, columns=self._names, notes=notes)
        yield Picture('maximised.png', 'What every class neuron wants to see', caption, alt, False, draw)

    def _certainty(self, net: Net, images: Array) -> np.ndarray:
        """The probability that a net gives the k-th image for class k, [K]."""
        found: Any = jax.jit(net.model.apply)(net.variables, images)
        return np.asarray(jnp.diagonal(jax.nn.softmax(found[net.output])))

    # Grad-CAM.

    def evidence(self) -> Iterable[Picture]:
        """Grad-CAM on images that the nets get right and wrong, and on average."""
        nets, labels = list(self._nets.values()), self._examples.labels
        logits = {net.key: net.trained.logits(self._examples) for net in nets}
        predictions = np.stack([logits[net.key].argmax(1) for net in nets])
        layers = {net.key: self._cam_layer(net) for net in nets}
        where = ', '.join(f'{layers[net.key]} of {TITLES[net.key]}' for net in nets)
        if self._with_faces:
            sure = np.stack([np.asarray(jax.nn.softmax(logits[net.key])).max(1) for net in nets])
            ids = saliency.telling(predictions == labels, sure.min(0), labels, self._visualize.cam_images)
            heats = [self._heat(net, ids, predictions[row, ids], layers[net.key]) for row, net in enumerate(nets)]
            yield self._overlays(ids, heats, predictions[:, ids], where)
        yield self._mean_heat(nets, layers, where)

    def _cam_layer(self, net: Net) -> str:
        shapes = net.shapes
        return saliency.deepest_map({name: shapes[name] for name in net.maps}, self._visualize.cam_side)

    def _heat(self, net: Net, ids: np.ndarray, classes: np.ndarray, layer: str) -> np.ndarray:
        """Grad-CAM [n,S,S] in 0..1 of one class per image, at positions `ids`."""
        size, pieces = min(self._visualize.batch_size, CAM_BATCH), []
        for start in range(0, len(ids), size):
            part = np.minimum(np.arange(start, start + size), len(ids) - 1)  # every call of one shape
            found = _grad_cam(
                net.model,
                net.variables,
                jnp.asarray(self._crops(ids[part])),
                jnp.asarray(classes[part]),
                layer=layer,
                output=net.output,
                mirror=self._run.config.loss.flip_test,
            )
            pieces.append(np.asarray(saliency.over(found, net.side)))
        return np.concatenate(pieces)[: len(ids)]

    def _overlays(self, ids: np.ndarray, heats: list[np.ndarray], predictions: np.ndarray, where: str) -> Picture:
        images, truth = self._crops(ids), self._examples.labels[ids]
        rows = ['image', *(SHORT[key] for key in self._nets)]
        pictures = [
            list(images),
            *([panels.overlaid(*pair) for pair in zip(images, heat, strict=True)] for heat in heats),
        ]
        notes = [[('', panels.INK)] * len(ids)]
        for row in predictions:
            right = row == truth
            notes.append(
                [
                    (f'{"✓" if ok else "✗"} {self._names[k]}', panels.RIGHT if ok else panels.WRONG)
                    for k, ok in zip(row, right, strict=True)
                ]
            )
        caption = (
            f'Grad-CAM of the predicted class on {self._which} that the nets get right and wrong, of each kind those '
            f'that they are surest of. Above: the true expression; below: the prediction. Maps: {where}.'
        )
        said = '; '.join(
            f'{self._names[k]}: '
            + ', '.join(
                f'{SHORT[key]} says {self._names[row[i]]}' for key, row in zip(self._nets, predictions, strict=True)
            )
            for i, k in enumerate(truth)
        )
        columns = [self._names[k] for k in truth]
        draw = functools.partial(panels.grid, pictures, rows=rows, columns=columns, notes=notes)
        title = 'Where the nets look (Grad-CAM)'
        return Picture('gradcam.png', title, caption, f'Face images under heat maps. {said}.', True, draw)

    def _mean_heat(self, nets: Sequence[Net], layers: Mapping[str, str], where: str) -> Picture:
        """The mean of Grad-CAM of the true class over images of each class: no single image can be told from it."""
        labels, per_class = self._examples.labels, self._visualize.mean_images
        ids = np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in range(len(self._names))])
        counts = np.bincount(labels[ids], minlength=len(self._names))
        pictures, notes = [], [[(f'{count} images', panels.INK) for count in counts]] * len(nets)
        for net in nets:
            heats = self._heat(net, ids, labels[ids], layers[net.key])
            means = [heats[labels[ids] == label].sum(0) / max(1, count) for label, count in enumerate(counts)]
            pictures.append([panels.heat(mean / max(float(mean.max()), 1e-9)) for mean in means])
        rows = [SHORT[net.key] for net in nets]
        caption = (
            f'Grad-CAM of the true class, averaged over up to {per_class} {self._which} of each class; bright is '
            f'strong evidence. Maps: {where}.'
        )
        alt = f'Heat maps, a row per net ({", ".join(rows)}), a column per class ({", ".join(self._names)}).'
        draw = functools.partial(panels.grid, pictures, rows=rows, columns=self._names, notes=notes)
        return Picture('gradcam_mean.png', 'Where the nets look on average', caption, alt, False, draw)

    # Stage 1.

    def regression(self) -> Iterable[Picture]:
        """Stage 1's responses beside the teacher's."""
        found = self._run.stage1()
        if found is None:
            return
        method, state, frozen = found
        outputs = self._run.outputs(Responses(method), {'state': state, 'frozen': frozen}, self._examples)
        student, teacher = outputs['student'], outputs['teacher']
        layer, scale = method.layer, 'standardised by channel' if method.standardise else 'raw'
        per_channel, overall = _shares(student, teacher)
        power = float(outputs['target_power'].mean(dtype=np.float64))
        loss = 1 - float(outputs['loss'].mean(dtype=np.float64)) / power if power else 0.0
        order = np.argsort(-teacher.reshape(-1, teacher.shape[-1]).var(0), kind='stable')
        said = (
            f"Of the variation of the teacher's {layer} ({scale}) over {self._which}, stage 1 explains "
            f'{100 * overall:.1f} % (by the loss, relative to a constant answer: {100 * loss:.1f} %); half of the '
            f'channels are explained better than {100 * np.median(per_channel):.0f} %.'
        )
        yield self._response_matrix(student, teacher, per_channel, order, said)
        if self._with_faces and teacher.ndim == 4 and min(teacher.shape[1:3]) > 2:
            yield self._maps(student, teacher, per_channel, order, said)

    def _response_matrix(
        self, student: np.ndarray, teacher: np.ndarray, shares: np.ndarray, order: np.ndarray, said: str
    ) -> Picture:
        rows = self._spread(24)
        means = [x.reshape(len(x), -1, x.shape[-1]).mean(1)[rows][:, order] for x in (teacher, student)]
        titles = ('teacher: the fine-tuned face net', 'student: the expression net after stage 1')
        draw = functools.partial(panels.responses, dict(zip(titles, means, strict=True)), shares[order])
        caption = f'{said} Rows are {len(rows)} images, columns all {len(shares)} channels (map means), one scale.'
        alt = f'Two matrices of responses, which look alike where stage 1 succeeds, and a bar per channel. {said}'
        return Picture('stage1.png', 'Stage 1: the student imitates the teacher', caption, alt, False, draw)

    def _maps(
        self, student: np.ndarray, teacher: np.ndarray, shares: np.ndarray, order: np.ndarray, said: str
    ) -> Picture:
        ids, channels = self._spread(self._visualize.map_images), order[: self._visualize.map_channels]
        bounds = {f: np.percentile(teacher[..., f], (1, 99.5)) for f in channels}
        blocks: dict[str, list[panels.Row]] = {'teacher': [], 'student': []}
        for title, maps in (('teacher', teacher), ('student', student)):
            for i, image in zip(ids, self._crops(ids), strict=True):
                shown = [panels.scaled(maps[i, ..., f], *bounds[f]) for f in channels]
                blocks[title].append(panels.Row(self._names[self._examples.labels[i]], [image, *shown]))
        headings = ('image', *(f'{f}: {100 * shares[f]:.0f} %' for f in channels))
        caption = (
            f"{said} Shown are the teacher's {len(channels)} channels of greatest variance, each on one scale in both "
            'blocks, with the share of it that is explained.'
        )
        alt = f'Face images and feature maps beside them, of the teacher and of the student. {said}'
        draw = functools.partial(panels.columns_of_rows, blocks, headings=headings)
        return Picture('stage1_maps.png', "Stage 1: the student's maps beside the teacher's", caption, alt, True, draw)

    # What they are made of.

    def _spread(self, count: int) -> np.ndarray:
        """Positions of up to `count` images, evenly over the classes in turn."""
        labels = self._examples.labels
        rank = np.zeros(len(labels), np.int64)
        for label in range(len(self._names)):
            here = labels == label
            rank[here] = np.arange(here.sum())
        return np.lexsort((labels, rank))[:count]

    @functools.cached_property
    def _mean_image(self) -> np.ndarray:
        """The mean of all images, [H,W,C]."""
        size, count = self._visualize.batch_size, len(self._examples)
        batches = (np.arange(start, min(start + size, count)) for start in range(0, count, size))
        return sum(self._crops(ids).sum(0, dtype=np.float64) for ids in batches) / count

    def _crops(self, ids: np.ndarray) -> np.ndarray:
        """What the nets see of images, float32 [n,H,W,C]."""
        return np.asarray(centre_crop(jnp.asarray(self._examples.gather(ids)), self._run.config.data.crop_size))


@dataclasses.dataclass(frozen=True)
class Responses:
    """An `Evaluator` of stage 1: the student's and the teacher's responses, and the losses that judge them."""

    method: FeatureRegression

    def eval_step(self, state: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """'student' and 'teacher' [B,...], 'loss' and 'target_power' [B]; `frozen` holds 'state' and 'frozen'."""
        del state
        net: NetState = frozen['state']
        features, target = self.method.responses(net, frozen['frozen'], batch)
        return {'student': features, 'teacher': target, **self.method.eval_step(net, frozen['frozen'], batch)}


def _shares(student: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, float]:
    """1 - residual / variance of the teacher's responses: of every channel [F] (0 for a constant one), and of all."""
    channels = teacher.shape[-1]
    one, other = (x.reshape(-1, channels).astype(np.float64) for x in (student, teacher))
    residual, total = ((one - other) ** 2).sum(0), ((other - other.mean(0)) ** 2).sum(0)
    shares = np.divide(total - residual, total, out=np.zeros(channels), where=total > 0)
    return shares, float(1 - residual.sum() / total.sum()) if total.sum() else 0.0
