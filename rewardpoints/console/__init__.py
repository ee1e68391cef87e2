"""The console: pages for operators, rendered on the server, on the functions behind the commands."""
