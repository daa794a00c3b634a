import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2i_tools.longclip import primary_component_loss
from t2i_tools.longclip.matching import contrast, primary_components


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def by_covariance(features, components):
    """The oracle: projection on the eigenvectors of the covariance with the largest eigenvalues."""
    x = features.numpy()
    _, vectors = np.linalg.eigh(np.cov(x.T))
    top = vectors[:, ::-1][:, :components]
    return (x - x.mean(0)) @ top @ top.T + x.mean(0)


def smoothed(logits, smoothing):
    """The oracle: cross-entropy with a target of 1 - s + s / B on the diagonal and s / B beside it."""
    logits = logits.numpy()
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full_like(logp, smoothing / len(logp)) + (1 - smoothing) * np.eye(len(logp))
    return -(target * logp).sum(1).mean()


def test_primary_components():
    features = unit(50, 16, seed=0)
    assert np.abs(primary_components(features, 5).numpy() - by_covariance(features, 5)).max() <= 1e-6
    assert torch.allclose(primary_components(features, 16), features, atol=1e-6)
    assert torch.allclose(primary_components(features[:4], 32), features[:4], atol=1e-6)


def test_the_loss():
    image, long, short = (unit(40, 64, seed=seed) for seed in range(3))
    coarse = torch.from_numpy(by_covariance(image, 32))
    expected = 0
    for left, right in ((image, long), (coarse, short)):
        logits = 20 * left @ right.T
        expected += (smoothed(logits, 0.1) + smoothed(logits.T, 0.1)) / 2
    assert float(primary_component_loss(image, long, short, 20.0)) == pytest.approx(expected, rel=1e-6)


def test_gradients_reach_images_and_both_texts_and_stay_finite():
    image, long, short = (unit(40, 64, seed=seed).requires_grad_() for seed in range(3))
    primary_component_loss(image, long, short, 20.0).backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.abs().max() > 0 for x in (image, long, short))
    same = unit(1, 64, seed=0).expand(40, -1).clone().requires_grad_()  # every singular value is zero
    primary_component_loss(same, long, short, 20.0).backward()
    assert torch.isfinite(same.grad).all()


def test_right_pairs_cost_least():
    image = unit(40, 64, seed=0)
    assert contrast(image, image, 20.0) < contrast(image, image.roll(1, 0), 20.0)
