"""Event-driven reward points."""

from importlib.metadata import version

__version__ = version("rewardpoints")
