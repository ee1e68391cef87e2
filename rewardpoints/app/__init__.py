"""The one place where the rooms are joined: what a process consists of, how it starts and how it ends."""
