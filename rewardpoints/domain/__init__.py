"""The rules of reward points: pure values and functions.

Nothing here does I/O, reads a clock or imports another room of the project. Instants are passed in as UTC datetimes,
points are ``int``, money is ``Decimal``.
"""
