"""`dataforge cluster`."""

from dataforge.cli.step_command import step_command

command = step_command("cluster", optional=("centroids",))
