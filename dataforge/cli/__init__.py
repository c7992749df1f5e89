"""The command line: commands in the order of the chain; the answer goes to stdout, the talk to stderr."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

import click

from dataforge.errors import DataforgeError
from dataforge.registry import unknown
from dataforge.steps import STEPS

OTHER = {
    "serve": "plans over REST, rows as a stream",
    "run": "make everything that a recipe names",
    "status": "what is whole, what was begun, and how to go on",
    "show": "one artifact: its counts, config and figures",
    "list": "the artifacts of a workspace",
    "lineage": "what an artifact, or one training row, was made from",
    "verify": "read every byte again",
    "diff": "what two plans do differently",
    "encode": "a text as a tokenizer cuts it",
    "keys": "API keys of the service",
    "report": "one self-contained HTML page about a chain",
}
COMMANDS = {name: step.help for name, step in STEPS.items()} | OTHER


class _Commands(click.Group):
    """Commands are imported when they are called, so that `dataforge --help` stays light."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"dataforge.cli.{name.replace('-', '_')}_command").command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
            raise click.UsageError(str(unknown("command", arguments[0], COMMANDS).hint), context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (("Steps, in their order", STEPS), ("Other commands", OTHER)):
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name]) for name in names])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dataforge-lm", message="dataforge %(version)s")
def commands() -> None:
    """Raw text to a balanced, exactly repeatable token stream, and a Mixture-of-Experts trainer at its end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 0 done, 1 a stated error, 2 usage, 130 interrupted with the finished parts kept."""
    sys.exit(run(list(arguments) if arguments is not None else None))


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    where = f"dataforge {given[0]}" if given else "dataforge"
    return exit_code(lambda: commands.main(arguments, prog_name="dataforge", standalone_mode=False), where)


def exit_code(work: Callable[[], object], where: str | None = None) -> int:
    """Do the work and return the exit code; errors are printed on stderr, with `where` if they name no place."""
    try:
        result = work()
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        print("interrupted; finished parts are kept, the same command goes on from them", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted; finished parts are kept, the same command goes on from them", file=sys.stderr)
        return 130
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except DataforgeError as error:
        error.where = error.where or where
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
