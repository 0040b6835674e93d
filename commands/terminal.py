"""What every command shares: faults as one line, results as JSON or a table, help with examples."""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiveprobe.base.cores import heed_quotas, let_waiting_threads_sleep
from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.base.progress import silent
from archiveprobe.base.reporting import LOGGER, SHOWN, Reporting, is_terminal, wrap
from archiveprobe.base.wording import duration
from archiveprobe.base.wording import shell_path as shell_path
from archiveprobe.commands.limits import heed_memory_limit
from archiveprobe.commands.names import DEVICE, check_typed
from archiveprobe.commands.stopping import end_at_once, stoppable
from archiveprobe.commands.tables import table

if TYPE_CHECKING:
    from archiveprobe.task.config import Task

NAME = "archiveprobe"

Function = TypeVar("Function", bound=Callable[..., Any])
_HERE = Path()


def task_argument(command: Function) -> Function:
    """Add the argument TASK, by default the current folder."""
    kind = click.Path(path_type=Path)
    return click.argument("task", type=kind, default=_HERE, callback=_ready_to_import)(command)


def task_before_argument(
    command: Function, complete: Callable[..., list[Any]] | None = None
) -> Function:
    """Add TASK, by default the current folder, to a command that takes other arguments after it.

    click gives the words to arguments from the left, so that one word alone would be the task. It
    completes all of them as TASK, by `complete` where that is given.
    """
    return click.argument(
        "task",
        type=click.Path(path_type=Path),
        nargs=-1,
        metavar="[TASK]",
        callback=_at_most_one,
        shell_complete=complete,
    )(command)


def _at_most_one(ctx: click.Context, argument: click.Parameter, tasks: tuple[Path, ...]) -> Path:
    if len(tasks) > 1:
        raise click.UsageError(f"Got unexpected extra argument ({tasks[1]})", ctx)
    return _ready_to_import(ctx, argument, tasks[0] if tasks else _HERE)


def _ready_to_import(ctx: click.Context, _: click.Parameter, task: Path) -> Path:
    # Completion imports nothing that a limit on memory matters to.
    if not ctx.resilient_parsing:
        heed_memory_limit()
        let_waiting_threads_sleep()
        heed_quotas()
    return task


def device_option(command: Function) -> Function:
    """Add the option --device."""
    return click.option(
        "--device",
        type=DEVICE,
        help='"cpu", "cuda", "cuda:1" or "mps" (Apple); default: a GPU where there is one.',
    )(command)


def language_option(command: Function) -> Function:
    """Add the option --language."""
    return click.option(
        "--language",
        type=click.Choice(("en", "ar")),
        default="en",
        show_default=True,
        help="Language that the page begins with.",
    )(command)


def port_option(command: Function) -> Function:
    """Add the option --port."""
    return click.option(
        "--port", type=click.IntRange(1, 65535), help="Port of the server; default: a free one."
    )(command)


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


def _shared_options(*, hidden: bool) -> list[click.Parameter]:
    """Return the options that every command takes, before or after its name."""

    def option(*names: str, takes: Callable[[Reporting, Any], None], **how: Any) -> click.Option:
        def heed(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            reporting = ctx.find_object(Reporting)
            if value and reporting is not None and not ctx.resilient_parsing:
                takes(reporting, value)

        # Before all others, so that what those find wrong is told in the way that was asked for.
        return click.Option(
            names, expose_value=False, is_eager=True, hidden=hidden, callback=heed, **how
        )

    def show_tracebacks(reporting: Reporting, _: bool) -> None:
        reporting.debug = True

    return [
        option(
            "-q",
            "--quiet",
            takes=lambda reporting, _: reporting.be_quiet(),
            is_flag=True,
            help="Show errors only: no progress, no notes.",
        ),
        option(
            "-v",
            "--verbose",
            takes=lambda reporting, _: reporting.be_verbose(),
            is_flag=True,
            help="Show how long every stage took, too.",
        ),
        option(
            "--log-file",
            takes=Reporting.log_to,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Append all messages and progress to FILE, with date and time.",
        ),
        option("--debug", takes=show_tracebacks, is_flag=True, help="Show tracebacks of faults."),
    ]


_SHARED, _SHARED_SHOWN = _shared_options(hidden=True), _shared_options(hidden=False)


class Command(click.Command):
    """A command that takes the shared options, and checks names before it loads anything."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, shared ones too."""
        return [*super().get_params(ctx), *_SHARED]

    def invoke(self, ctx: click.Context) -> Any:
        """Check what was typed, then run. Raises InputError."""
        check_typed(ctx)
        started = time.monotonic()
        result = super().invoke(ctx)
        LOGGER.debug("%s: done in %s", ctx.info_name, duration(time.monotonic() - started))
        return result


class Group(click.Group):
    """A group of commands, which take the shared options like itself."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, shared ones too."""
        return [*super().get_params(ctx), *_SHARED]


class Commands(click.Group):
    """The whole command line: a user's fault ends it with one line instead of a traceback."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, shared ones too."""
        return [*super().get_params(ctx), *_SHARED_SHOWN]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of the work."""
        return list(self.commands)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        """Run; `--debug`, before or after the command, lets the traceback through."""
        if args is None:
            end_at_once()
        # Not every name is text, and not every terminal writes all letters.
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")
        with Reporting() as reporting:
            try:
                return super().main(args, *rest, obj=reporting, **named)
            except Exception as error:
                message = _fault(error)
                if message is None or reporting.debug:
                    raise
                LOGGER.error("error: %s", " ".join(message.split()))
                sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an interrupt says that the work can go on."""
        with stoppable() as stop:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                pass
            except click.ClickException as error:
                # click shows it, and the usage.
                LOGGER.error("error: %s", error.format_message(), extra=SHOWN)
                raise
            except (InputError, click.exceptions.Exit):
                raise
            except Exception:
                # Libraries turn an interrupt into errors of their own, above all while they load.
                if not stop.number:
                    raise
            LOGGER.error("interrupted: what was finished is kept, run the same command again")
            raise click.exceptions.Exit(stop.exit_status)


def _fault(error: Exception) -> str | None:
    """Say in a line what is wrong, or nothing where that is not for a user to mend."""
    if isinstance(error, InputError):
        return str(error)
    if is_out_of_memory(error):
        return "memory ran out: free some, raise the limit (ulimit -v), or ask for less at once"
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{place}: check the disk and the permissions"
    if isinstance(error, ImportError):
        return f"a library cannot be loaded: {error}: free memory, or install it again"
    return None


def say(message: str) -> None:
    """Tell the user something that is not the result."""
    LOGGER.info("%s", message)


def progress(what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Show how far the current command is."""
    reporting = click.get_current_context().find_object(Reporting)
    return silent(what, total) if reporting is None else reporting.progress(what, total)


def example(*lines: str) -> dict[str, Any]:
    """Return settings of a command whose help ends with an example."""
    text = "\b\nExample:\n" + "\n".join(f"  {NAME} {line}" for line in lines)
    return {"context_settings": {"help_option_names": ["-h", "--help"]}, "epilog": text}


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command whose help ends with these examples."""

    return click.command(cls=Command, **example(*examples))


def group(name: str, *examples: str) -> Callable[[Callable[..., Any]], Group]:
    """Make a group of commands whose help ends with these examples."""

    return click.group(name, cls=Group, **example(*examples))


def print_result(
    record: Any, lines: Iterable[Mapping[str, Any]], as_json: bool, summary: str = ""
) -> None:
    """Print the record as JSON, or a summary and the lines as an aligned table."""
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))
        return
    if summary:
        print_line(summary)
    # Another program gets whole lines; rich would cut them to 80 characters there.
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    for line in table(lines, width):
        click.echo(line)


def print_line(text: str) -> None:
    """Print a line of a result; on a terminal it wraps at words."""
    click.echo(wrap(text) if is_terminal(sys.stdout) else text)


def load(task: Path) -> "Task":
    """Read the task that a command was given. Raises InputError."""
    from archiveprobe.task.config import load_task

    return load_task(task)
