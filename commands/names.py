"""Names that options take: checked before any library is loaded, and completed by the shell."""

import ast
import os
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from archiveprobe.task.config import Task


class Checked:
    """A kind of value that is checked before anything heavy is loaded."""

    def check(self, task: "Task | None", value: Any) -> None:
        """Check a value; the task is None in a command that takes none. Raises InputError."""
        raise NotImplementedError


class Name(Checked, click.ParamType[str]):
    """A name: `check` raises InputError for one that is not known, `known` lists those that are.

    Both take the task, or None where they have no need of it (`of_task` false). Where it may also
    be the path of a file, `or_file` is true.
    """

    name = "name"

    def __init__(
        self,
        check: Callable[[Any, str], object],
        known: Callable[[Any], Iterable[str]],
        *,
        of_task: bool = True,
        or_file: bool = False,
    ) -> None:
        self._check, self._known = check, known
        self._of_task, self._or_file = of_task, or_file

    def check(self, task: "Task | None", value: str) -> None:
        """See Checked."""
        self._check(task, value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> "list[CompletionItem]":
        """Complete it to a name known to the task that was typed before it, or to the one here."""
        # click leaves a task that stands before an option without its value among the rest.
        return self.complete(ctx.args[0] if ctx.args else ctx.params.get("task"), incomplete)

    def complete(self, folder: Path | str | None, incomplete: str) -> "list[CompletionItem]":
        """Complete it to a name known to the task in a folder, by default the current one."""
        from click.shell_completion import CompletionItem

        from archiveprobe.base.errors import InputError
        from archiveprobe.task.config import load_task

        try:
            task = load_task(Path(folder or ".")) if self._of_task else None
        except InputError:
            return []
        # What stands before a plus is complete.
        head = incomplete[: incomplete.rfind("+") + 1]
        names = (head + name for name in self._known(task))
        items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return items or [CompletionItem(incomplete, type="file")] if self._or_file else items


class Output(Checked, click.Path):
    """A file to write; a folder is refused before anything is computed."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def check(self, task: "Task | None", value: Path) -> None:  # noqa: ARG002
        """See Checked."""
        from archiveprobe.base.errors import InputError

        if value.is_dir():
            raise InputError(f"{value} is a folder: name a file in it with -o")
        above = next(folder for folder in value.absolute().parents if folder.exists())
        if not above.is_dir():
            raise InputError(f"cannot write {value}: {above} is no folder: name another with -o")


class TableOrFolder(Output):
    """A table to write, or a folder of parts."""

    def check(self, task: "Task | None", value: Path) -> None:
        """See Checked."""
        if not value.is_dir():
            super().check(task, value)


class ShareName(click.ParamType[Any]):
    """One of several shares of the work: K/N."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        from archiveprobe.archive.units import Share
        from archiveprobe.base.errors import InputError

        try:
            return value if isinstance(value, Share) else Share.parse(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class Input(Checked, click.Path):
    """A file or folder to read: `kind` of the two, and `what` to name where there is none."""

    def __init__(self, what: str, kind: str = "file") -> None:
        super().__init__(path_type=Path)
        self._what, self._kind = what, kind

    def check(self, task: "Task | None", value: Path) -> None:  # noqa: ARG002
        """See Checked."""
        from archiveprobe.base.errors import InputError
        from archiveprobe.task.config import nearest

        # Whoever reads it says what is wrong with what is there.
        if not os.path.lexists(value):
            beside = value.parent.iterdir() if value.parent.is_dir() else ()
            hint = nearest(value.name, (path.name for path in beside))
            raise InputError(f"no {self._kind} {value}{hint}: name {self._what}")


class ImageSource(Checked, click.ParamType[str]):
    """An archive: a path, a pattern of paths, or a URL."""

    name = "source"

    def check(self, task: "Task | None", value: str) -> None:
        """See Checked."""
        from archiveprobe.archive.several import is_pattern
        from archiveprobe.archive.store import protocol_of

        if value and "\0" not in value and not protocol_of(value) and not is_pattern(value):
            what = "the folder, list, table or tar of the images"
            Input(what, "file or folder").check(task, Path(value))


class TableChoice(click.Choice[str]):
    """Chooses among the keys of a table, named as "module:TABLE".

    They are read from the module's source: to import it may take seconds.
    """

    def __init__(self, table: str) -> None:
        super().__init__([])
        self.table = table

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        module, _, name = self.table.partition(":")
        spec = find_spec(f"archiveprobe.{module}")
        assert spec is not None and spec.origin is not None
        return _keys_in(Path(spec.origin).read_text("utf-8"), name)

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the table's keys."""
        return self._keys

    @choices.setter
    def choices(self, _: tuple[str, ...]) -> None:
        """Ignore what the base class has been given."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Name the nearest choice, too."""
        near = get_close_matches(str(value), self.choices, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return super().get_invalid_choice_message(value, ctx) + hint


def _keys_in(source: str, table: str) -> tuple[str, ...]:
    """Return the keys of the first dictionary in the assignment to that name."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if [getattr(target, "id", None) for target in targets] == [table]:
            entries = next(part for part in ast.walk(node) if isinstance(part, ast.Dict))
            return tuple(ast.literal_eval(key) for key in entries.keys if key is not None)
    raise LookupError(f"no table {table}")


def check_typed(ctx: click.Context) -> None:
    """Check the task and all names of a command, in the time of a blink.

    Raises:
        InputError: a task.toml that is missing or wrong, or an unknown name; the nearest is given.
    """
    task = None
    if "task" in ctx.params:
        from archiveprobe.task.config import load_task

        task = load_task(ctx.params["task"])
    for parameter in ctx.command.params:
        if isinstance(parameter.type, Checked):
            value = ctx.params[str(parameter.name)]
            values = value if isinstance(value, tuple) else (value,)
            for each in values:
                if each is not None:
                    parameter.type.check(task, each)


def _check_probe(_: object, name: str) -> None:
    from archiveprobe.probe.table import probe_entry

    probe_entry(name)


def _probes(_: object) -> Iterable[str]:
    from archiveprobe.probe.table import PROBES

    return PROBES


def _check_backbone(task: "Task", name: str) -> None:
    from archiveprobe.embed.backbones import resolve

    resolve(name, task)


def _backbones(task: "Task") -> Iterable[str]:
    from archiveprobe.embed.backbones import BACKBONES

    return dict.fromkeys([*task.embed.backbones, *task.backbone, *BACKBONES])


def _check_views(_: object, name: str) -> None:
    from archiveprobe.embed.view_sets import view_set

    view_set(name)


def _views(_: object) -> Iterable[str]:
    from archiveprobe.embed.view_sets import VIEW_SETS

    return [name for name, entry in VIEW_SETS.items() if entry.views]


def _check_features(task: "Task", text: str) -> None:
    from archiveprobe.probe.choice import parse_choice
    from archiveprobe.task.texts import is_text_cache

    for backbone in parse_choice(text).backbones:
        if not is_text_cache(backbone):
            _check_backbone(task, backbone)


def _check_system(task: "Task", name: str) -> None:
    from archiveprobe.evaluate.system_names import no_system, systems

    if name not in systems(task):
        raise no_system(task, name)


def _systems(task: "Task") -> Iterable[str]:
    from archiveprobe.evaluate.system_names import systems

    return systems(task)


def _check_recipe(_: object, name: str) -> None:
    from archiveprobe.finetune.recipe_names import find_recipe

    find_recipe(name)


def _recipes(_: object) -> Iterable[str]:
    from archiveprobe.finetune.recipe_names import RECIPES

    return RECIPES


def _check_device(_: object, name: str) -> None:
    from archiveprobe.embed.device import check_device_name

    check_device_name(name)


PROBE = Name(_check_probe, _probes, of_task=False)
BACKBONE = Name(_check_backbone, _backbones)
VIEWS = Name(_check_views, _views, of_task=False)
FEATURES = Name(_check_features, lambda task: task.embed.backbones)
SYSTEM = Name(_check_system, _systems)
RECIPE = Name(_check_recipe, _recipes, of_task=False, or_file=True)
DEVICE = Name(_check_device, lambda _: ("cpu", "cuda", "mps"), of_task=False)
OUTPUT, TABLE_OR_FOLDER, SHARE = Output(), TableOrFolder(), ShareName()
IMAGES = ImageSource()
