"""What operators do: one module a command. Joins rooms as ``app`` does; what it calls returns typed values.

A module named after a command asks the rooms and answers with dataclasses, which the command line and the console show
each in their way. The ``commands_…`` modules hold the Typer commands, the ``show_…`` modules the tables and texts.
"""
