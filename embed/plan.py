"""What an embed run has to do: rows, their files, and what each backbone's cache lacks."""

from dataclasses import dataclass
from functools import cached_property

from archiveprobe.archive.units import Share
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.embed.backbones import Backbone, resolve, text_tower
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.job import Job, Options
from archiveprobe.embed.layers import check_layers
from archiveprobe.embed.precision import check_precision
from archiveprobe.embed.take_over import take_over
from archiveprobe.embed.thumbnails import stored_thumbnails
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.tuned import names_of_networks
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry, with_found_paths
from archiveprobe.task.missing_images import report_missing
from archiveprobe.task.rows import Row, read_rows
from archiveprobe.task.scan import known_entries, scan
from archiveprobe.task.shares import ROWS_PER_UNIT
from archiveprobe.task.snapshot import own_snapshot
from archiveprobe.task.texts import texts


@dataclass(frozen=True)
class Plan:
    """The rows of a task, what is known of their images, and each backbone's missing rows.

    `texts` are the prompts and captions under their keys, for the text towers in `text_jobs`. With
    a `share` only its rows are here, and no texts. `manifest` is the digest of the manifest that
    holds these very entries, "" where none does.
    """

    task: Task
    rows: list[Row]
    entries: list[Entry]
    jobs: list[Job]
    device: str
    texts: dict[str, str]
    text_jobs: list[Job]
    share: Share | None = None
    manifest: str = ""

    @cached_property
    def keys(self) -> list[str]:
        """Return digests of the images that have or may have an embedding, each once, in order."""
        candidates = (e for e in self.entries if e.digest and (e.usable or e.observed is None))
        return list(dict.fromkeys(entry.digest for entry in candidates))

    @property
    def undecoded(self) -> list[str]:
        """Return digests of the images that lack an observation, or a thumbnail that is asked."""
        known = {entry.digest for entry in self.entries if entry.observed}
        if self.task.embed.thumbnails:
            known &= stored_thumbnails(self.task.work / "thumbs")
        return [key for key in self.keys if key not in known]


def plan(
    task: Task, options: Options, *, notify: Notify = lambda _: None, progress: Progress = silent
) -> Plan:
    """Find out what is to do, without loading torch.

    Raises:
        InputError: a fault in task.toml, the table or the options.
    """
    given = {"backbones": options.backbones, "views": options.views}
    overrides = {key: value for key, value in given.items() if value is not None}
    task = task.model_copy(update={"embed": task.embed.model_copy(update=overrides)})
    check_layers(task.embed.layers)
    view_set(task.embed.views)
    asked = [name for each in task.embed.backbones for name in names_of_networks(task, each)]
    backbones = [resolve(name, task) for name in dict.fromkeys(asked)]
    device = options.device or default_device()
    check_device(device)
    check_precision(options.precision, device)
    threads = ForwardThreads(device)
    if options.share and options.source:
        raise InputError("--units and --from do not go together: run embed once with --from first")
    if options.share and options.engine == "ray":
        raise InputError("--units and --engine ray do not go together: Ray shares the work itself")
    rows = read_rows(task, notify=notify)
    taken: list[Entry] = []
    if options.source:
        taken = take_over(
            task, options.source, backbones, precision=options.precision, notify=notify
        )
    before = own_snapshot(task)
    share = options.share
    owns = share.owns if share else lambda _: True
    own = [at for at in range(len(rows)) if owns(at // ROWS_PER_UNIT)]
    with progress("reading", len(own)) as advance:
        rehash = options.rehash
        known, manifest = known_entries(task, notify=notify)
        if taken:
            # What the task has seen itself comes last, and counts.
            known = [*taken, *known]
        entries = scan(
            task, rows, known, rehash=rehash, owns=owns, on_hashed=advance, notify=notify
        )
    # What another decoder has seen is in the manifest, and not known here.
    if entries != known or any(entry.observed is None for entry in entries):
        manifest = ""
    del known
    rows = with_found_paths(rows, entries)
    report_missing(task, entries, notify)
    rows, entries = [rows[at] for at in own], [entries[at] for at in own]
    text_of = {} if share else texts(task, rows)
    towers = [text_tower(backbone) for backbone in backbones] if text_of else []

    def job(backbone: Backbone) -> Job:
        in_use = before.cache(task.asks(backbone.name, backbone.tower))
        return Job(task, backbone, options, device, notify, threads, in_use)

    return Plan(
        task,
        rows,
        entries,
        [job(backbone) for backbone in backbones],
        device,
        text_of,
        [job(tower) for tower in towers if tower],
        share,
        manifest,
    )
