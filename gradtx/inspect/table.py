"""Sizes in plain text."""

from __future__ import annotations

from gradtx.core.spec.words import size

__all__ = ["size"]
