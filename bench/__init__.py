"""Measures the service against what the same servers allow, side by side in the same run. See docs/performance.md."""
