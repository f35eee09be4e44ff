"""Frequency response: whether an operator passes coarse or fine detail."""

from __future__ import annotations

import torch
from torch import Tensor

from hssl_search.discrepancy.architecture.sensitivity import Operator, pulled_back


def frequency_response(operator: Operator, x: Tensor) -> float:
    """Return (H - L) / (H + L), -1 to 1: negative for low-pass, positive for high-pass, 0 for an
    operator that passes all frequencies alike.

    H and L are the root mean square gains for frequencies of the upper half (above a quarter cycle
    per position along an axis) and of the lower half. It is tanh(d / 2) of d = log H - log L, the
    relative log amplitude of high frequencies by which arXiv 2202.06709 (figure 2 and section 3)
    calls attention low-pass and convolution high-pass. There it is that of feature maps. Here it is
    that of the Jacobian, which the flat spectrum of what a nonlinearity makes of noise does not
    blur. A gain at a frequency is the amplitude there of J^T v for white noise v. 0 as well for a
    map of one position and for an operator that ignores its input.

    Args:
        operator: B x c x h x w to B x C x h x w.
        x: B x c x h x w inputs at which the Jacobian is taken.
    """
    # Drawn on the CPU, so that every device measures with the same noise.
    felt = pulled_back(operator, x, lambda output: torch.randn(output.shape).to(output))
    power = torch.fft.fft2(felt.double()).abs().square().mean(dim=(0, 1))
    rows, columns = (torch.fft.fftfreq(side).abs() > 0.25 for side in power.shape)
    high = (rows[:, None] | columns[None, :]).to(power.device)
    if not high.any() or power.sum() == 0:
        return 0.0
    fine, coarse = power[high].mean().sqrt(), power[~high].mean().sqrt()
    return float((fine - coarse) / (fine + coarse))
