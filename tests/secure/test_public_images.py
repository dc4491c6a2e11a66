"""Public images: from a seed alone, and with something to see."""

import torch

from prism_secure.data.public_images import dead_leaves


def test_images_depend_on_the_seed_alone():
    torch.manual_seed(0)
    a = dead_leaves(5, side=16, channels=3, seed=1)
    torch.manual_seed(1)
    assert torch.equal(a, dead_leaves(5, side=16, channels=3, seed=1))
    assert not torch.equal(a, dead_leaves(5, side=16, channels=3, seed=2))


def test_images_fill_the_range_of_pictures_and_differ_everywhere():
    images = dead_leaves(300, side=8, channels=3, seed=0)
    assert images.shape == (300, 3, 8, 8)
    assert images.dtype == torch.float32
    assert float(images.min()) == -1
    assert 0.9 < float(images.max()) <= 1
    assert float(images.std(0).min()) > 0.3  # no pixel and no channel is alike in all images


def test_half_of_the_images_have_a_black_ground():
    images = dead_leaves(400, side=8, seed=0, leaves=1)
    black = (images == -1).flatten(1).float().mean(1) > 0.3
    assert 0.35 < float(black.float().mean()) < 0.65


def test_later_leaves_hide_earlier_ones():
    """The first leaves are the same draws however many follow, so more leaves only cover what was there."""
    few, many = (dead_leaves(50, side=16, seed=3, leaves=n) for n in (1, 24))
    flat = [float((images[:, :, 1:] == images[:, :, :-1]).float().mean()) for images in (few, many)]
    assert flat[1] < flat[0]
