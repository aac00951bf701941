"""Per-channel factors and offsets, folded into the exact results that have a place for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from intaglio.passes.integer.lazy import Affine, Const, Kind, Linear, Norm, Pending, Real

PerChannel = Linear | Affine | Norm


def channels(kind: PerChannel) -> int:
    """How many channels `kind` has."""
    if isinstance(kind, Linear):
        return len(kind.weight_scale)
    return len(kind.multiplier if isinstance(kind, Affine) else kind.gamma)


def channel_vector(value: Pending, constant: Const) -> Real | None:
    """The constant as one number per channel of `value`, if it is that."""
    axis = value.channel_axis
    if axis is None or not isinstance(value.kind, PerChannel):
        return None
    shape = (1,) * (len(value.shape) - len(constant.shape)) + constant.shape
    wanted = tuple(n if i == axis else 1 for i, n in enumerate(value.shape))
    return constant.real().reshape(-1) if shape == wanted else None


def last_axis_vector(constant: Const, shape: tuple[int, ...]) -> Real | None:
    """The constant as one number per index of the last axis of `shape`, if it is that."""
    fits = constant.shape[-1:] == shape[-1:] and int(np.prod(constant.shape)) == shape[-1]
    return constant.real().reshape(-1) if fits else None


def with_gain(kind: Kind, gain: Real) -> PerChannel:
    """Gain * kind, per channel, for a kind that has channels.

    Scales stay positive: a linear takes the sign into its weights.
    """
    if isinstance(kind, Norm):
        return replace(kind, gamma=kind.gamma * gain, beta=kind.beta * gain)
    if isinstance(kind, Affine):
        return replace(kind, multiplier=kind.multiplier * gain, offset=kind.offset * gain)
    assert isinstance(kind, Linear), kind
    bias = None if kind.bias is None else kind.bias * gain
    weight = kind.weight
    if (gain < 0).any():
        signs = np.where(gain < 0, -1, 1).astype(np.int32)
        weight = weight.astype(np.int32) * signs.reshape([-1] + [1] * (weight.ndim - 1))
    return replace(kind, weight=weight, weight_scale=kind.weight_scale * np.abs(gain), bias=bias)


def with_bias(kind: Kind, bias: Real) -> PerChannel:
    """Kind + bias, per channel, for a kind that has channels."""
    if isinstance(kind, Norm):
        return replace(kind, beta=kind.beta + bias)
    if isinstance(kind, Affine):
        return replace(kind, offset=kind.offset + bias)
    assert isinstance(kind, Linear), kind
    return replace(kind, bias=bias if kind.bias is None else kind.bias + bias)
