"""Trying the service out: the environment of ``rewardpoints dev``, its tokens, its samples and a load on it."""
