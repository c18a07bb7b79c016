"""Measure learned equivariance: Lie derivatives and the local equivariance error of torch modules."""

__version__ = "0.1.0"
