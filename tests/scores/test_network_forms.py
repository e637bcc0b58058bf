"""Scores that run the network against naive forms from their equations, and against pytorch-ood 0.4.0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_ood import detector
from torch import nn
from torch.nn import functional

from tests.network_data import images, network
from workflow_scripts.core import plugins
from workflow_scripts.core.errors import OODError
from workflow_scripts.models import clip_vit, densenet_bc
from workflow_scripts.scores import adascale, gl_mcm, gram, iodin, neglabel, odin, rankfeat
from workflow_scripts.scores.base import Known


def inputs(count, seed):
    pixels, labels = images(count, seed)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 63.75 - 2, torch.from_numpy(labels)


def noise(count=24):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def net():
    """In double precision: definitions count."""
    return network().double()


def double(x):
    return x.double()


# -- iODIN --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [None, (0.2, 0.3, 0.4)])
def test_iodin_changes_the_value_of_largest_gradient(net, std):
    options = iodin.Options(temperature=2.0, epsilon=0.3, by_std=std is not None)
    x = double(noise(6))
    expected = []
    for image in x:
        image = image[None].clone().requires_grad_()
        z = net(image) / 2
        gradient = torch.autograd.grad(functional.cross_entropy(z, z.argmax(1)), image)[0][0]
        channel, row, column = np.unravel_index(int(gradient.abs().argmax()), gradient.shape)
        moved = image[0].detach().clone()
        moved[channel, row, column] -= 0.3 * gradient[channel, row, column].sign() / (std[channel] if std else 1)
        expected.append(float((net(moved[None]) / 2).log_softmax(1).max()))
    found = iodin.score(options, Known(input_std=std), None, net, x)
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_iodin_without_a_step_is_odin_without_one(net):
    x = double(noise(4))
    torch.testing.assert_close(iodin.score(iodin.Options(epsilon=0.0), Known(), None, net, x),
                               odin.score(odin.Options(epsilon=0.0), Known(), None, net, x))


# -- RankFeat -----------------------------------------------------------------------------------------------------


def without_leading(maps):
    """By singular value decomposition."""
    u, s, v = torch.linalg.svd(maps.flatten(2), full_matrices=False)
    s[:, 0] = 0
    return (u * s[:, None] @ v).view_as(maps)


def test_rankfeat_of_the_last_stage_agrees_with_pytorch_ood(net):
    x = double(noise())
    theirs = detector.RankFeat(net.maps, lambda maps: net.head(maps.mean(dim=(2, 3)))).predict(x)
    torch.testing.assert_close(rankfeat.score(rankfeat.Options("last"), Known(), None, net, x), -theirs)


def test_rankfeat_averages_the_logits_of_two_stages(net):
    x = double(noise())
    with torch.no_grad():
        before = net.layer3(net.layer2(net.layer1(torch.relu(net.bn1(net.conv1(x))))))
        pair = [without_leading(net.layer4(before)), net.layer4(without_leading(before))]
        expected = sum(net.head(maps.mean(dim=(2, 3))) for maps in pair).div(2).logsumexp(dim=1)
    torch.testing.assert_close(rankfeat.score(rankfeat.Options(), Known(), None, net, x), expected)


def test_rankfeat_goes_on_from_the_changed_stage_of_a_densenet():
    torch.manual_seed(0)
    net = densenet_bc.build(densenet_bc.Options(depth=10, growth=4), 5).double().eval().requires_grad_(False)
    x = double(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    *_, before, last = net.stages(x)
    pair = [without_leading(last), torch.relu(net.bn1(net.block3(without_leading(before))))]
    expected = sum(net.head(maps.mean(dim=(2, 3))) for maps in pair).div(2).logsumexp(dim=1)
    torch.testing.assert_close(rankfeat.score(rankfeat.Options(), Known(), None, net, x), expected)


class OneStage(nn.Module):
    head = nn.Linear(3, 2)

    def stages(self, x):
        yield x


def test_rankfeat_needs_two_stages_for_both():
    with pytest.raises(OODError, match=r"rankfeat\.blocks: .* choose 'last'"):
        rankfeat.score(rankfeat.Options(), Known(), None, OneStage(), noise(2))


# -- Gram ---------------------------------------------------------------------------------------------------------


def gram_row_sums(maps, p):
    """(C, h, w) -> (C,), from the Gram matrix itself."""
    f = maps.reshape(len(maps), -1).numpy() ** p
    sums = (f @ f.T).sum(axis=1)
    return np.sign(sums) * np.abs(sums) ** (1 / p)


@pytest.mark.parametrize("powers", [(1,), (1, 2, 3)])
def test_gram_equals_the_naive_form(net, powers):
    options = gram.Options(powers=powers, held_out=40)
    x, labels = double(inputs(120, 1)[0]), inputs(120, 1)[1]
    state = gram.fit(options, Known(train_labels=labels.numpy()), net, zip(x.split(50), labels.split(50), strict=True))
    aside = gram.mahalanobis_ensemble.held_out(gram.mahalanobis_ensemble.Options(held_out=40), labels.numpy())
    assert aside.sum() == 24
    with torch.no_grad():
        train, tested = ([torch.stack(part) for part in zip(*(
            [maps[0] for maps in net.stages(image[None])] for image in part), strict=True)] for part in (
                x, double(noise(8))))
        predicted = net(double(noise(8))).argmax(1).tolist()
    total = np.zeros(8)
    for stage, of_noise in zip(train, tested, strict=True):
        deviations, out = np.zeros(24), np.zeros(8)
        for p in powers:
            sums = np.array([gram_row_sums(maps, p) for maps in stage])
            bounds = [(sums[~aside & (labels.numpy() == c)].min(0), sums[~aside & (labels.numpy() == c)].max(0))
                      for c in range(3)]

            def way(g, c, bounds=bounds):
                low, high = bounds[c]
                return sum(np.maximum(low - g, 0) / abs(low + 1e-6) + np.maximum(g - high, 0) / abs(high + 1e-6))
            deviations += [way(g, int(c)) for g, c in zip(sums[aside], labels[aside], strict=True)]
            out += [way(gram_row_sums(maps, p), c) for maps, c in zip(of_noise, predicted, strict=True)]
        total += out / (deviations.mean() or 1.0)
    scores = gram.score(options, Known(), state, net, double(noise(8)))
    np.testing.assert_allclose(-scores.numpy(), total, rtol=1e-6)


def test_gram_sums_agree_with_pytorch_ood(net):
    maps = net.maps(double(noise(4)))
    for p in (1, 2, 5):
        torch.testing.assert_close(gram.row_sums(maps, (p,))[:, 0], detector.Gram._gram_vector(maps, p))


def test_gram_does_not_overflow():
    """Theirs is infinite: 10 ** 20 squared is more than float32 holds."""
    maps = torch.rand(2, 3, 4, 4) * 100 + 50
    assert gram.row_sums(maps, (10,)).isfinite().all()
    assert not detector.Gram._gram_vector(maps, 10).isfinite().all()


def test_gram_refuses_a_class_without_images(net):
    labels = np.repeat([0, 2], 20)
    with pytest.raises(OODError, match="class 1 has no image"):
        gram.fit(gram.Options(), Known(train_labels=labels), net, [])


# -- AdaSCALE -----------------------------------------------------------------------------------------------------


def naive_adascale(net, options, image, train):
    """One image; ``train``: its Q' of the train images, or ``None`` for Q' alone."""
    x = image[None].clone().requires_grad_()
    h = net.features(x)
    gradient = torch.autograd.grad(net.head(h).max(), x)[0].flatten()
    weakest = gradient.abs().argsort()[:int(len(gradient) * options.o)]
    moved = image.flatten().clone()
    moved[weakest] += options.step * gradient[weakest].sign()
    h, other = h[0].detach(), net.features(moved.view_as(image)[None])[0]
    order = (-h).argsort()
    first, second = (max(int(len(h) * k / 100), 1) for k in (options.k1, options.k2))
    q = other.relu()[order[:first]].sum() + options.lam * (h - other).abs()[order[:second]].sum()
    if train is None:
        return float(q)
    p = options.p_min + (1 - np.mean(train <= float(q))) * (options.p_max - options.p_min)
    kept = len(h) - round(len(h) * p / 100)
    r = float(h.sum() / h.sort(descending=True).values[:kept].sum())
    z = net.head(h * math.exp(r)) if options.variant == "a" else net.head(h) * r**2
    return float(z.logsumexp(0))


@pytest.mark.parametrize("variant", ["a", "l"])
@pytest.mark.parametrize("count", [40, 13])
def test_adascale_equals_the_naive_form(net, variant, count):
    options = adascale.Options(variant, p_min=40, p_max=90, k1=25, k2=10, images=count)
    x, labels = double(inputs(40, 1)[0]), inputs(40, 1)[1]
    batches = zip(x.split(15), labels.split(15), strict=True)
    state = adascale.fit(options, Known(train_labels=labels.numpy()), net, batches)
    train = np.array([naive_adascale(net, options, image, None) for image in x[::-(-40 // count)]])
    np.testing.assert_allclose(state, np.sort(train), rtol=1e-9)
    tested = torch.cat([x[:6] + 0.1, double(noise(6))])
    expected = [naive_adascale(net, options, image, train) for image in tested]
    np.testing.assert_allclose(adascale.score(options, Known(), state, net, tested), expected, rtol=1e-9)


def test_adascale_refuses_percentiles_in_the_wrong_order():
    with pytest.raises(OODError, match=r"scores\.adascale: .* p_min, 90.0, is above the largest, p_max, 85.0; swap"):
        plugins.parse_options("scores", "adascale", {"p_min": 90.0}, "scores.adascale")


# -- GL-MCM -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    options = clip_vit.Options(image=16, patch=8, width=64, layers=3, trained=1, embed=24, text_width=64, text_layers=1)
    net = clip_vit.build(options, 5).double().eval().requires_grad_(False)
    net.fc.weight.copy_(functional.normalize(torch.randn(5, 24).double()))
    return net


def test_places_attend_to_themselves_alone(clip):
    """With a mask that lets each token see nothing else, the last block's own attention gives the same."""
    x = double(torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    whole, places = clip.places(x)
    torch.testing.assert_close(whole, clip.features(x))
    tokens = clip._blocks(clip.visual._embeds(x), slice(0, -1))
    alone = torch.full((5, 5), -torch.inf).fill_diagonal_(0)
    last = clip.visual.transformer.resblocks[-1]
    order = clip.visual.transformer.batch_first
    tokens = last(tokens if order else tokens.transpose(0, 1), attn_mask=alone)
    tokens = tokens if order else tokens.transpose(0, 1)
    torch.testing.assert_close(places, clip.visual.ln_post(tokens[:, 1:]) @ clip.visual.proj)


def test_gl_mcm_is_the_sum_of_two_largest_probabilities(clip):
    x = double(torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    options = gl_mcm.Options(T=0.1, lam=0.5)
    expected = []
    for whole, places in zip(*clip.places(x), strict=True):
        cosines = [functional.cosine_similarity(e, clip.fc.weight) / 0.1 for e in (whole, *places)]
        best = [float(c.softmax(0).max()) for c in cosines]
        expected.append(best[0] + 0.5 * max(best[1:]))
    np.testing.assert_allclose(gl_mcm.score(options, Known(), None, clip, x), expected, rtol=1e-12)


# -- NegLabel -----------------------------------------------------------------------------------------------------


def test_neglabel_equals_the_naive_form(clip):
    clip.negatives = functional.normalize(torch.randn(20, 24, generator=torch.Generator().manual_seed(2)).double())
    options = neglabel.Options(T=0.2, share=0.5, percentile=75, groups=3)
    state = neglabel.fit(options, Known(), clip, [])
    near = [np.percentile([float(word @ text) for text in clip.fc.weight], 75) for word in clip.negatives]
    farthest = set(np.argsort(near)[:10].tolist())
    numbers = [[int((clip.negatives - word).norm(dim=1).argmin()) for word in group] for group in state]
    dealt = [number for group in numbers for number in group]
    assert [len(group) for group in numbers] == [3, 3, 3]
    assert len(set(dealt)) == 9 and set(dealt) <= farthest
    x = double(torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    expected = []
    for embedding in clip.features(x):
        unit = embedding / embedding.norm()
        inside = sum(math.exp(float(unit @ text) / 0.2) for text in clip.fc.weight)
        outside = [sum(math.exp(float(unit @ clip.negatives[n]) / 0.2) for n in group) for group in numbers]
        expected.append(np.mean([inside / (inside + part) for part in outside]))
    np.testing.assert_allclose(neglabel.score(options, Known(), state, clip, x), expected, rtol=1e-10)
    with pytest.raises(OODError, match=r"neglabel\.groups: 100 groups, but of 20 words only 3 are kept"):
        neglabel.fit(neglabel.Options(), Known(), clip, [])


def test_neglabel_needs_words(net):
    with pytest.raises(OODError, match="give the model clip_vit the option negatives"):
        neglabel.fit(neglabel.Options(), Known(), net, [])


def test_gl_mcm_refuses_a_network_without_patches(net):
    with pytest.raises(OODError, match="embeddings of a CLIP image's patches, which ResNet does not have"):
        gl_mcm.score(gl_mcm.Options(), Known(), None, net, double(noise(2)))
