"""Feature moments and the matching loss against plain definitions."""

import pytest
import torch
from torch import Tensor

from prism_privacy import MomentRelease, release_moments
from prism_secure.data.features import FeatureExtractor, RandomFourierFeatures
from prism_secure.learning.moment_matching import (
    FakeAverages,
    FeatureMoments,
    MomentMatching,
    feature_moments,
)


class Pixels(FeatureExtractor):
    dimension = 4

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


IMAGES = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.tensor([0] * 12 + [2] * 18)


def test_moments_by_class_are_means_and_biased_variances_and_absent_classes_are_empty():
    found = feature_moments(Pixels(), IMAGES, LABELS, classes=3, batch_size=7)
    flat = IMAGES.flatten(1)
    assert torch.allclose(found.mean[0], flat[:12].mean(0), atol=1e-6)
    assert torch.allclose(found.variance[2], flat[12:].var(0, unbiased=False), atol=1e-6)
    assert found.counts.tolist() == [12, 0, 18]
    assert found.present.tolist() == [1, 0, 1]
    assert torch.equal(found.variance[1], torch.zeros(4))
    assert torch.allclose(found.pooled_variance(), flat.var(0, unbiased=False), atol=1e-5)


def test_a_release_without_noise_gives_the_moments_themselves():
    release = MomentRelease(records=30, norm=2.0, sigma=0.0, classes=3)
    found = FeatureMoments.of_release(release_moments(IMAGES.flatten(1).numpy(), LABELS.numpy(), release))
    exact = feature_moments(Pixels(), IMAGES, LABELS, classes=3)
    assert found.counts.tolist() == [12, 0, 18]
    assert torch.allclose(found.mean[::2], exact.mean[::2], atol=1e-5)
    assert torch.allclose(found.variance[::2], exact.variance[::2], atol=1e-5)


def test_without_classes_there_is_one_row():
    found = feature_moments(Pixels(), IMAGES)
    assert found.mean.shape == (1, 4)
    assert torch.allclose(found.mean[0], IMAGES.flatten(1).mean(0), atol=1e-6)


def test_moments_do_not_depend_on_the_batch_size():
    extractor = RandomFourierFeatures(8, sides=(2,), bandwidths=(0.5,))
    one = feature_moments(extractor, IMAGES, LABELS, classes=3, batch_size=30)
    two = feature_moments(extractor, IMAGES, LABELS, classes=3, batch_size=4)
    assert torch.allclose(one.mean, two.mean, atol=1e-6)
    assert torch.allclose(one.variance, two.variance, atol=1e-6)


def test_missing_images_and_labels_are_refused():
    with pytest.raises(ValueError, match="without images"):
        feature_moments(Pixels(), IMAGES[:0])
    with pytest.raises(ValueError, match="label"):
        feature_moments(Pixels(), IMAGES, classes=3)


def _target() -> FeatureMoments:
    return feature_moments(Pixels(), IMAGES, LABELS, classes=3)


def _past(averaging="ema") -> FakeAverages:
    return FakeAverages.zero(3, 4, averaging)


def test_a_generator_with_the_clients_own_moments_has_no_loss():
    target = feature_moments(Pixels(), IMAGES)
    loss, _ = MomentMatching(decay=0.0)(IMAGES.flatten(1), None, target, FakeAverages.zero(1, 4, "ema"))
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_without_memory_the_loss_is_the_scaled_distance_of_the_batch_moments():
    fake = torch.randn(12, 4)
    labels = torch.arange(12) % 3
    target = _target()
    loss, _ = MomentMatching(decay=0.0, variance_weight=2.0)(fake, labels, target, _past())
    expected = 0.0
    for k in (0, 2):
        rows = fake[labels == k]
        mean = (rows.mean(0) - target.mean[k]) ** 2
        spread = (torch.sqrt(rows.var(0, unbiased=False) + 1e-6) - torch.sqrt(target.variance[k] + 1e-6)) ** 2
        expected += ((mean + 2.0 * spread) / (target.pooled_variance() + 1e-6)).mean() / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_unscaled_the_loss_is_the_plain_distance_whatever_the_variances():
    fake = torch.randn(12, 4)
    labels = torch.arange(12) % 3
    target = _target()
    bare = FeatureMoments(target.mean, torch.zeros_like(target.variance), target.counts)
    loss, _ = MomentMatching(decay=0.0, variance_weight=0.0, scaled=False)(fake, labels, bare, _past())
    expected = sum(float(((fake[labels == k].mean(0) - target.mean[k]) ** 2).sum()) / 2 for k in (0, 2))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_noise_on_a_target_adds_a_constant_and_leaves_directions_that_images_cannot_move_alone():
    """Unscaled, noise on a feature that no image changes moves the loss and not the gradient."""
    fake = torch.randn(12, 4)
    fake[:, 3] = 0.0  # the fourth feature is always 0
    fake.requires_grad_(True)
    labels = torch.arange(12) % 3
    target = _target()
    noisy = FeatureMoments(target.mean + torch.tensor([0, 0, 0, 5.0]), target.variance, target.counts)
    found = []
    for some in (target, noisy):
        loss, _ = MomentMatching(variance_weight=0.0, scaled=False)(fake, labels, some, _past())
        (gradient,) = torch.autograd.grad(loss, fake)
        found.append((float(loss.detach()), gradient))
    assert found[1][0] > found[0][0] + 1
    assert torch.equal(found[0][1][:, :3], found[1][1][:, :3])


def test_classes_that_a_client_lacks_carry_no_gradient():
    fake = torch.randn(12, 4, requires_grad=True)
    labels = torch.arange(12) % 3
    loss, _ = MomentMatching()(fake, labels, _target(), _past())
    (gradient,) = torch.autograd.grad(loss, fake)
    assert float(gradient[labels == 1].abs().sum()) == 0
    assert float(gradient[labels != 1].abs().min()) > 0


def test_a_release_that_says_that_no_class_is_present_teaches_nothing():
    fake = torch.randn(6, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    target = _target()
    nothing = FeatureMoments(target.mean, target.variance, torch.zeros(3))
    loss, _ = MomentMatching(scaled=False)(fake, labels, nothing, _past())
    (gradient,) = torch.autograd.grad(loss, fake)
    assert float(loss.detach()) == 0
    assert not gradient.any()


def test_averages_are_bias_corrected_means_of_past_and_present():
    target = feature_moments(Pixels(), IMAGES)
    matching = MomentMatching(decay=0.5, variance_weight=0.0)
    past = FakeAverages.zero(1, 4, "ema")
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    _, past = matching(a, None, target, past)
    loss, _ = matching(b, None, target, past)
    blended = (a.mean(0) + 2 * b.mean(0)) / 3
    scale = 1 / (target.pooled_variance() + 1e-6)
    assert float(loss) == pytest.approx(float(((blended - target.mean[0]) ** 2 * scale).mean()), rel=1e-4)


def test_gradient_size_does_not_depend_on_the_memory():
    """A batch like the past has the gradient it would have alone, so the learning rate keeps its meaning."""
    target = feature_moments(Pixels(), IMAGES)
    fake = torch.randn(50, 4, requires_grad=True)
    grads = []
    for decay in (0.0, 0.9):
        matching, past = MomentMatching(decay=decay, variance_weight=0.0), FakeAverages.zero(1, 4, "ema")
        for _ in range(5):
            loss, past = matching(fake, None, target, past)
        grads.append(torch.autograd.grad(loss, fake)[0])
    assert torch.allclose(grads[0], grads[1], atol=1e-5)


def test_faithful_tracks_the_difference_of_moments_and_descends_along_it():
    target = feature_moments(Pixels(), IMAGES)
    matching = MomentMatching(averaging="faithful", tracking_rate=0.05)
    past = FakeAverages.zero(1, 4, "faithful")
    fake = (torch.randn(64, 4) * 0.1 + 3).requires_grad_(True)
    for _ in range(400):
        loss, past = matching(fake, None, target, past)
    gap = target.mean - fake.detach().mean(0, keepdim=True)
    assert torch.allclose(past.first, gap, atol=0.1)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert (
        float((gradient.mean(0) * gap[0]).max()) < 0
    )  # a step against the gradient moves fakes to the reals


def test_the_tracked_differences_move_by_the_given_rate_and_decay():
    """One step of Adam from zero is as long as the rate everywhere, later ones follow its formula."""
    target = feature_moments(Pixels(), IMAGES)
    matching = MomentMatching(averaging="faithful", tracking_rate=0.01, betas=(0.5, 0.9))
    fake = torch.randn(64, 4) * 0.1 + 3
    _, past = matching(fake, None, target, FakeAverages.zero(1, 4, "faithful"))
    gap = target.mean - fake.mean(0, keepdim=True)
    assert torch.allclose(past.first, 0.01 * gap.sign(), atol=1e-5)
    tracked = torch.nn.Parameter(torch.zeros(1, 4))
    adam = torch.optim.Adam([tracked], lr=0.01, betas=(0.5, 0.9))
    past = FakeAverages.zero(1, 4, "faithful")
    for _ in range(5):
        fake = torch.randn(64, 4)
        _, past = matching(fake, None, target, past)
        adam.zero_grad()
        (0.5 * (tracked - (target.mean - fake.mean(0, keepdim=True))).square().sum()).backward()
        adam.step()
    assert torch.allclose(past.first, tracked.detach(), atol=1e-6)


def test_a_batch_without_one_of_the_classes_is_refused():
    with pytest.raises(ValueError, match="each of the 3 classes"):
        MomentMatching()(torch.randn(4, 4), torch.tensor([0, 0, 1, 1]), _target(), _past())


@pytest.mark.parametrize("wrong", [{"averaging": "none"}, {"decay": 1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MomentMatching(**wrong)
