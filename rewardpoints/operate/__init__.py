"""What operators do: one module a command. Joins rooms as ``app`` does; what it calls returns typed values.

A module named after a command asks the rooms and answers with dataclasses, which the command line and the console show
each in their way. The ``commands_…`` modules hold the Typer commands, also those that run the service; ``cli`` imports
the one that is called. The ``show_…`` modules hold the tables and texts.
"""
