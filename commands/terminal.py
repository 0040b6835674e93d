"""What every command shares: faults as one line, results as JSON or a table, help with examples."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiveprobe.base.errors import InputError
from archiveprobe.commands.limits import heed_memory_limit
from archiveprobe.commands.stopping import end_at_once, stoppable

if TYPE_CHECKING:
    from archiveprobe.task.config import Task

NAME = "archiveprobe"

Function = TypeVar("Function", bound=Callable[..., Any])


def task_argument(command: Function) -> Function:
    """Add the argument TASK."""
    kind = click.Path(path_type=Path)
    return click.argument("task", type=kind, callback=_ready_to_import)(command)


def _ready_to_import(_: click.Context, __: click.Parameter, task: Path) -> Path:
    heed_memory_limit()
    return task


def json_option(command: Function) -> Function:
    """Add the option --json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")(
        command
    )


def partial_option(command: Function) -> Function:
    """Add the option --partial."""
    return click.option(
        "--partial", is_flag=True, help="Leave out rows that wait for embed; every line says so."
    )(command)


class TableChoice(click.Choice[str]):
    """Chooses among the keys of a table, named as "module:TABLE", that is imported when needed."""

    def __init__(self, table: str) -> None:
        super().__init__([])
        self._table = table

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the table's keys."""
        module, _, name = self._table.partition(":")
        return tuple(getattr(import_module(f"{NAME}.{module}"), name))

    @choices.setter
    def choices(self, _: tuple[str, ...]) -> None:
        """Ignore what the base class has been given."""


class Commands(click.Group):
    """A group whose commands end with one line instead of a traceback when a user is at fault."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        """Run; `--debug`, anywhere before a `--`, lets the traceback through."""
        if args is None:
            end_at_once()
        words = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in words[: words.index("--") if "--" in words else None]
        if debug:
            words.remove("--debug")
            return super().main(words, *rest, **named)
        try:
            return super().main(words, *rest, **named)
        except InputError as error:
            _fail(str(error))
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            _fail(f"{error.strerror or error}{place}: check the disk and the permissions")
        except MemoryError:
            _fail("memory ran out: free some, raise the limit (ulimit -v), or ask for less at once")
        except ImportError as error:
            _fail(f"a library cannot be loaded: {error}: free memory, or install it again")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an interrupt says that the work can go on."""
        with stoppable() as stop:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                pass
            except (InputError, click.ClickException, click.exceptions.Exit):
                raise
            except Exception:
                # Libraries turn an interrupt into errors of their own, above all while they load.
                if not stop.number:
                    raise
            say("interrupted: what is done is kept, the same command goes on from there")
            raise click.exceptions.Exit(stop.exit_status)


def _fail(message: str) -> None:
    say(f"error: {' '.join(message.split())}")
    sys.exit(1)


def say(message: str) -> None:
    """Tell the user something that is not the result."""
    click.echo(message, err=True)


def example(*lines: str) -> dict[str, Any]:
    """Return settings of a command whose help ends with an example."""
    text = "\b\nExample:\n" + "\n".join(f"  {NAME} {line}" for line in lines)
    return {"context_settings": {"help_option_names": ["-h", "--help"]}, "epilog": text}


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command whose help ends with these examples."""

    return click.command(cls=click.Command, **example(*examples))


def group(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Group]:
    """Make a group of commands whose help ends with these examples."""

    return click.group(name, cls=click.Group, **example(*examples))


def print_result(record: Any, lines: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Print the record as JSON, or its lines as an aligned table."""
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))
        return
    # Not a table of rich: where stdout is a pipe it cuts columns to 80 characters.
    cells = [{key: _cell(value) for key, value in line.items()} for line in lines]
    if not cells:
        return
    width = {key: max(len(key), *(len(line[key]) for line in cells)) for key in cells[0]}
    for line in [{key: key for key in width}, *cells]:
        click.echo("  ".join(line[key].ljust(width[key]) for key in width).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def load(task: Path) -> "Task":
    """Read the task that a command was given. Raises InputError."""
    from archiveprobe.task.config import load_task

    return load_task(task)
